// Runs a client's cases concurrently, each as a different user, and prints their results as JSON.

const headers = JSON.parse(process.env.HEADERS)
export const url = process.env.SERVER_URL
export const cuttingUrl = process.env.CUTTING_URL
export const truncatingUrl = process.env.TRUNCATING_URL

/** Headers of a user, as the proxy in front of the server would add them. */
export function as(user, more = {}) {
  return { ...headers, 'X-Forwarded-User': user, ...more }
}

export async function eventually(condition, seconds = 25) {
  const deadline = Date.now() + seconds * 1000
  let result
  while (!(result = await condition()) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 50))
  return result
}

/** Waits until no message of the user is queued or running. Resolves with whether that came true. */
export function waitUntilIdle(user) {
  return eventually(async () => {
    const response = await fetch(`${url}/api/chat/active`, { headers: as(user) })
    return (await response.json()).messages.length === 0
  })
}

export async function stop(user, messageId) {
  return (await fetch(`${url}/api/chat/stream/${messageId}/stop`, { method: 'POST', headers: as(user) })).status
}

/** Has the test restart the server; resolves when it is ready again. */
export async function restart() {
  process.stdout.write('restart\n')
  for await (const _ of process.stdin) return
}

const timeout = (seconds) => new Promise((_, fail) => setTimeout(() => fail(new Error('timed out')), seconds * 1000)) // Keeps the process alive: `eventsource` does not while it waits.

export async function run(cases) {
  const results = {}
  const runCase = async ([name, body]) => {
    try {
      results[name] = await Promise.race([body(`${process.env.CLIENT}-${name}`), timeout(40)])
    } catch (error) {
      results[name] = { failed: String(error?.stack ?? error) }
    }
  }
  await Promise.all(Object.entries(cases).map(runCase))
  process.stdout.write(`\n${JSON.stringify(results)}\n`, () => process.exit(0))
}
