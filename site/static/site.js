// A click on a picture opens it by itself, where a phone can enlarge it and the links inside a diagram work.
document.addEventListener("DOMContentLoaded", () => {
  const root = document.documentElement.dataset.content_root;
  for (const picture of document.querySelectorAll("article img")) {
    if (picture.closest("a, .pcma-explorer")) continue;
    const link = document.createElement("a");
    const name = picture.getAttribute("src").split("/").pop();
    link.href = name.endsWith(".svg") ? `${root}docs/diagrams/${name}` : picture.src;
    picture.replaceWith(link);
    link.append(picture);
  }
});
