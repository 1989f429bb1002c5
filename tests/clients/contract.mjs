// The same cases for every client that shows a chat. Each client is a class with the same methods; see clients/*.mjs.
//
//   node contract.mjs <client> [case …]

import { load } from './contract_clients.mjs'
import { as, cuttingUrl, eventually, restart, run, stop, waitUntilIdle, url } from './harness.mjs'

const FRAMES = 12
const [name, ...only] = process.argv.slice(2)
const Client = await load(name)
const open = (user, more = {}) => new Client({ user, base: url, headers: as(user), chat: 'chat-1', ...more })
const cutAt = (user, header, frames) => ({ base: cuttingUrl, headers: as(user, { [header]: String(frames) }) })

const cases = {
  async answer(user) {
    const client = open(user)
    return [await client.send('Hello, streaming world'), await client.send('and again')]
  },

  async unicode(user) {
    return open(user).send('/unicode')
  },

  async error(user) {
    const client = open(user)
    return [await client.send('/error'), await client.send('after it')]
  },

  async silence(user) {
    return open(user).send('/silence 1')
  },

  async tool(user) {
    return open(user).send('/tool')
  },

  async stop(user) {
    const client = open(user)
    const sent = client.send('/slow 600 one two')
    await client.waitFor('one ')
    const status = await stop(user, await client.messageId())
    return { status, shown: await sent, idle: await waitUntilIdle(user) }
  },

  // A connection for each case, cut after its first, second, … frame.
  async cuts(user) {
    const cut = async (frames) => {
      const own = `${user}-${frames}`
      const client = open(own, cutAt(own, 'X-Cut-Frame', frames))
      const shown = await client.send('/slow 4 one two three')
      return client.resumesItself ? shown : client.resume(shown)
    }
    return Promise.all(Array.from({ length: FRAMES }, (_, index) => cut(index + 1)))
  },

  async reload(user) {
    const before = open(user)
    const sent = before.send('/slow 4 one two three')
    await before.waitFor('one ')
    const after = await before.reloaded()
    const shown = await after.shown()
    return { before: await sent, after: shown }
  },

  // The first tab's reply is followed by the second tab's, in the queue; each tab is reloaded while both wait or run.
  async tabs(user) {
    const tabs = ['chat-1', 'chat-2'].map((chat) => open(user, { chat }))
    const first = tabs[0].send('/slow 3 one two')
    await tabs[0].waitFor('one ')
    const second = tabs[1].send('/slow 1 three four')
    await eventually(() => tabs[1].accepted)
    const reloaded = await Promise.all(tabs.map((tab) => tab.reloaded()))
    const shown = await Promise.all(reloaded.map((tab) => tab.shown()))
    return { before: await Promise.all([first, second]), after: shown }
  },
}

// The server restarts while it replies. Only run by itself, as it disturbs all other cases.
const restarts = {
  async restart(user) {
    const client = open(user)
    const sent = client.send('/slow 2 one two')
    await client.waitFor('one ')
    await restart()
    const shown = await sent
    return [client.resumesItself ? shown : await client.resume(shown), await client.send('and again')]
  },
}

await run(only.length ? Object.fromEntries(only.map((each) => [each, { ...cases, ...restarts }[each]])) : cases)
