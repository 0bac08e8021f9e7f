/** What stands in the place of node:fs in a Worker of a browser: files of the site, read at once. */

/** Read a file. */
export function readFileSync(url: URL): Uint8Array<ArrayBuffer> {
  const request = new XMLHttpRequest();
  request.open("GET", url, false);
  request.responseType = "arraybuffer"; // which only Workers may ask for without waiting
  request.send();
  if (request.status !== 200) {
    throw new Error(`${url}: ${request.status}`);
  }
  return new Uint8Array(request.response);
}

/** List the names of a folder. */
export function readdirSync(url: URL): string[] {
  const folder = new URL(url.href.endsWith("/") ? url.href : `${url.href}/`);
  return JSON.parse(new TextDecoder().decode(readFileSync(folder)));
}

/** Tell whether there is a file. */
export function existsSync(url: URL): boolean {
  return readdirSync(new URL(".", url)).includes(url.pathname.split("/").at(-1) ?? "");
}
