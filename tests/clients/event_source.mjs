import { fetchEventSource } from '@microsoft/fetch-event-source'
import { EventSource } from 'eventsource'
import { as, cuttingUrl, run, stop, url } from './harness.mjs'

const TERMINAL = ['complete', 'error', 'stopped']

// fetch-event-source is written for browsers, and looks whether its page is hidden.
globalThis.window = globalThis
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }

/** Says it and leaves: whoever knows the id can follow. */
async function say(user, message) {
  const leaving = new AbortController()
  const response = await fetch(`${url}/api/chat/stream`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', ...as(user) },
    body: JSON.stringify({ message }),
    signal: leaving.signal,
  })
  leaving.abort()
  return response.headers.get('X-Message-ID')
}

function hear(heard, event) {
  heard.types.push(event.type)
  heard.text += event.type === 'progress' ? event.text : ''
  heard.code = event.code
  return TERMINAL.includes(event.type)
}

function follow(user, messageId, base = url, more = {}, onText = () => {}) {
  return new Promise((resolve) => {
    const heard = { types: [], text: '', opened: 0 }
    const source = new EventSource(`${base}/api/chat/stream/${messageId}`, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...as(user, more) } }),
    })
    source.onopen = () => (heard.opened += 1)
    source.onmessage = ({ data }) => {
      const over = hear(heard, JSON.parse(data))
      if (heard.text) onText()
      if (over) resolve(heard, source.close())
    }
  })
}

async function fetched(user, path, init = {}, base = url, more = {}) {
  const heard = { types: [], text: '', opened: 0 }
  await fetchEventSource(`${base}${path}`, {
    ...init,
    headers: as(user, { ...init.headers, ...more }),
    openWhenHidden: true,
    onopen: async () => void (heard.opened += 1),
    onmessage: ({ data }) => void (data && hear(heard, JSON.parse(data))),
  })
  return heard
}

const posted = (user, message) =>
  fetched(user, '/api/chat/stream', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ message }),
  })

const FIVE = '/slow 2 one two three four five'
const CUT = { 'X-Cut': 'three' }

await run({
  answer: async (user) => follow(user, await say(user, 'Hello, streaming world')),
  unicode: async (user) => (await follow(user, await say(user, '/unicode'))).text,
  error: async (user) => follow(user, await say(user, '/error')),
  silence: async (user) => follow(user, await say(user, '/silence 1')),
  resume: async (user) => follow(user, await say(user, FIVE), cuttingUrl, CUT),

  async stop(user) {
    const messageId = await say(user, '/slow 600 one two')
    return follow(user, messageId, url, {}, () => stop(user, messageId))
  },

  fetchAnswer: (user) => posted(user, 'Hello, streaming world'),
  fetchUnicode: async (user) => (await posted(user, '/unicode')).text,
  fetchError: (user) => posted(user, '/error'),
  fetchSilence: (user) => posted(user, '/silence 1'),
  fetchResume: async (user) => fetched(user, `/api/chat/stream/${await say(user, FIVE)}`, {}, cuttingUrl, CUT),
})
