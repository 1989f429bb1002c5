import { fetchEventSource } from '@microsoft/fetch-event-source'
import { EventSource } from 'eventsource'
import { as, cuttingUrl, run, stop, url } from './harness.mjs'

const TERMINAL = ['complete', 'error', 'stopped']

// fetch-event-source expects a browser's globals, and checks whether the page is hidden.
globalThis.window = globalThis
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }

/** Posts a message and disconnects. Resolves with its id, which can be followed. */
async function post(user, message) {
  const controller = new AbortController()
  const response = await fetch(`${url}/api/chat/stream`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...as(user) },
    body: JSON.stringify({ message }),
    signal: controller.signal,
  })
  controller.abort()
  return response.headers.get('X-Message-ID')
}

function record(received, event) {
  received.types.push(event.type)
  received.text += event.type === 'progress' ? event.text : ''
  received.code = event.code
  return TERMINAL.includes(event.type)
}

function follow(user, messageId, base = url, more = {}, onText = () => {}) {
  return new Promise((resolve) => {
    const received = { types: [], text: '', opened: 0 }
    const source = new EventSource(`${base}/api/chat/stream/${messageId}`, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...as(user, more) } }),
    })
    source.onopen = () => (received.opened += 1)
    source.onmessage = ({ data }) => {
      const ended = record(received, JSON.parse(data))
      if (received.text) onText()
      if (ended) resolve(received, source.close())
    }
  })
}

async function followWithFetch(user, path, init = {}, base = url, more = {}) {
  const received = { types: [], text: '', opened: 0 }
  await fetchEventSource(`${base}${path}`, {
    ...init,
    headers: as(user, { ...init.headers, ...more }),
    openWhenHidden: true,
    onopen: async () => void (received.opened += 1),
    onmessage: ({ data }) => void (data && record(received, JSON.parse(data))),
  })
  return received
}

const postWithFetch = (user, message) =>
  followWithFetch(user, '/api/chat/stream', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ message }),
  })

const SLOW_MESSAGE = '/slow 2 one two three four five'
const CUT_HEADERS = { 'X-Cut': 'three' }

await run({
  answer: async (user) => follow(user, await post(user, 'Hello, streaming world')),
  unicode: async (user) => (await follow(user, await post(user, '/unicode'))).text,
  error: async (user) => follow(user, await post(user, '/error')),
  silence: async (user) => follow(user, await post(user, '/silence 1')),
  resume: async (user) => follow(user, await post(user, SLOW_MESSAGE), cuttingUrl, CUT_HEADERS),

  async stop(user) {
    const messageId = await post(user, '/slow 600 one two')
    return follow(user, messageId, url, {}, () => stop(user, messageId))
  },

  fetchAnswer: (user) => postWithFetch(user, 'Hello, streaming world'),
  fetchUnicode: async (user) => (await postWithFetch(user, '/unicode')).text,
  fetchError: (user) => postWithFetch(user, '/error'),
  fetchSilence: (user) => postWithFetch(user, '/silence 1'),
  fetchResume: async (user) => followWithFetch(user, `/api/chat/stream/${await post(user, SLOW_MESSAGE)}`, {}, cuttingUrl, CUT_HEADERS),
})
