// Renders a recipe's page as a bundler builds it, without a browser: types a message, sends it, and prints the page's text.

import { readFile, writeFile } from 'node:fs/promises'
import { transform } from 'esbuild'
import { Window } from 'happy-dom'

const [, , recipe, message] = process.argv
const window = new Window({ url: process.env.SERVER_URL })
const cookies = new Map()

/** A page's `fetch`: relative URLs, cookies and an origin. */
async function pageFetch(input, init = {}) {
  const headers = new Headers(init.headers)
  headers.set('Origin', process.env.SERVER_URL)
  headers.set('Cookie', [...cookies].map(([name, value]) => `${name}=${value}`).join('; '))
  const response = await nodeFetch(new URL(input, process.env.SERVER_URL), { ...init, headers })
  for (const cookie of response.headers.getSetCookie()) {
    const [, name, value] = cookie.match(/^([^=]+)=([^;]*)/)
    cookies.set(name, value)
  }
  return response
}

const nodeFetch = globalThis.fetch
for (const name of Object.getOwnPropertyNames(window)) {
  if (!(name in globalThis)) globalThis[name] = window[name]
}
Object.assign(globalThis, { window, document: window.document, FormData: window.FormData, fetch: pageFetch })
window.fetch = pageFetch

const React = await import('react')
const { createRoot } = await import('react-dom/client')
const { code } = await transform(await readFile(recipe, 'utf8'), { loader: 'jsx', jsx: 'automatic' })
await writeFile(`${recipe}.mjs`, code)
const { default: Page } = await import(`${recipe}.mjs`)

const root = document.body.appendChild(document.createElement('div'))
createRoot(root).render(React.createElement(Page))

async function waitFor(condition) {
  const deadline = Date.now() + 30_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error(`timed out: ${condition}\n${root.innerHTML}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

await waitFor(() => root.querySelector('[name=text]'))
const field = root.querySelector('[name=text]')
const set = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(field), 'value').set
set.call(field, message)
field.dispatchEvent(new window.Event('input', { bubbles: true }))
await waitFor(() => !root.querySelector('form button').disabled)
root.querySelector('form').dispatchEvent(new window.Event('submit', { bubbles: true, cancelable: true }))

const text = message.replace(/^\/slow \d+ /, '')
if (text !== message) {
  await waitFor(() => root.querySelector('#stop') && root.textContent.includes('one '))
  root.querySelector('#stop').click()
  await waitFor(() => !root.querySelector('#stop'))
} else {
  await waitFor(() => root.textContent.split(text).length > 2)
}
process.stdout.write(root.textContent, () => process.exit(0))
