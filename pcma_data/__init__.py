"""Data for PCMANet: composed clips, AVSBench made ready, published weights fetched and converted."""
