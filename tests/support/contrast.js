(() => {
  // WCAG 2.2, 1.4.3 and 1.4.11: contrast of visible texts (4.5, large ones 3) and of lines (3).
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const parse = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let node = element; node; node = node.parentElement) {
      layers.push(parse(getComputedStyle(node).backgroundColor));
    }
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    let colour = dark ? [0, 0, 0] : [255, 255, 255];
    for (const layer of layers.reverse()) colour = over(layer, colour);
    return colour;
  };
  const luminance = (colour) => {
    const [r, g, b] = colour.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  const check = (element, name, colour, least) => {
    const under = behind(element);
    const ratio = contrast(over(parse(colour), under), under);
    if (ratio < least) found.push({ name, ratio, least });
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let number = 0;
  while (texts.nextNode()) {
    const node = texts.currentNode;
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility() || element.closest("script, style, title, desc")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const colour = element.closest("svg") ? style.fill : style.color;
    check(element, node.data.trim().slice(0, 40), colour, large ? 3 : 4.5);
    number += 1;
  }
  for (const line of document.querySelectorAll("svg path, svg use")) {
    const { stroke } = getComputedStyle(line);
    if (stroke !== "none" && line.checkVisibility()) check(line, `line ${stroke}`, stroke, 3);
  }
  return number > 20 ? found : [{ name: "too few texts were seen", ratio: number, least: 20 }];
})()
