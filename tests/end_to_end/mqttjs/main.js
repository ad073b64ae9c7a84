// MQTT.js, 3.1.1 and 5.
'use strict'

const assert = require('assert')
const crypto = require('crypto')
const { Peer, run } = require('./peer')

const versions = [['3.1.1', 4], ['5', 5]]

async function everyQosArrivesInOrder (protocolVersion) {
  const subscriber = await Peer.connect('s', { protocolVersion })
  const publisher = await Peer.connect('p', { protocolVersion })
  await subscriber.subscribe('a/+', { qos: 2 })
  for (const qos of [0, 1, 2]) {
    for (let number = 0; number < 100; number++) publisher.client.publish(`a/${qos}`, `${qos}-${number}`, { qos })
    for (let number = 0; number < 100; number++) await subscriber.expect(`a/${qos}`, `${qos}-${number}`, { qos })
  }
  await subscriber.leave()
  await publisher.leave()
}

async function retainedMessagesAreKeptAndDeleted (protocolVersion) {
  const publisher = await Peer.connect('p', { protocolVersion })
  await publisher.publish('kept/a', 'one', { qos: 1, retain: true })
  const subscriber = await Peer.connect('s', { protocolVersion })
  await subscriber.subscribe('kept/#', { qos: 1 })
  await subscriber.expect('kept/a', 'one', { retain: true, qos: 1 })
  await publisher.publish('kept/a', '', { qos: 1, retain: true })
  await subscriber.expect('kept/a', '', { retain: false })
  const late = await Peer.connect('late', { protocolVersion })
  await late.subscribe('kept/#', { qos: 1 })
  await late.expectNothing()
  for (const peer of [publisher, subscriber, late]) await peer.leave()
}

async function aBigPayloadArrivesWhole (protocolVersion) {
  const subscriber = await Peer.connect('s', { protocolVersion })
  const publisher = await Peer.connect('p', { protocolVersion })
  await subscriber.subscribe('big', { qos: 2 })
  for (const size of [100000, 1000000]) {
    const payload = crypto.randomBytes(size)
    await publisher.publish('big', payload, { qos: 2 })
    await subscriber.expect('big', payload, { qos: 2 })
  }
  await subscriber.leave()
  await publisher.leave()
}

async function aSessionIsResumed (protocolVersion) {
  const options = { protocolVersion, clean: false, properties: { sessionExpiryInterval: 100 } }
  if (protocolVersion === 4) delete options.properties
  const away = await Peer.connect(`away-${protocolVersion}`, options)
  assert.strictEqual(away.connack.sessionPresent, false)
  await away.subscribe('t', { qos: 2 })
  away.vanish()
  await new Promise((resolve) => setTimeout(resolve, 200))
  const publisher = await Peer.connect('p', { protocolVersion })
  for (let number = 0; number < 20; number++) await publisher.publish('t', `${number}`, { qos: 2 })
  const back = await Peer.connect(`away-${protocolVersion}`, options)
  assert.strictEqual(back.connack.sessionPresent, true)
  for (let number = 0; number < 20; number++) await back.expect('t', `${number}`, { qos: 2 })
  await back.leave()
  await publisher.leave()
}

async function aWillTellsOfALostClient (protocolVersion) {
  const watcher = await Peer.connect('watcher', { protocolVersion })
  await watcher.subscribe('wills/#', { qos: 1 })
  const lost = await Peer.connect('lost', { protocolVersion, will: { topic: 'wills/lost', payload: Buffer.from('gone'), qos: 1, retain: false } })
  lost.vanish()
  await watcher.expect('wills/lost', 'gone', { qos: 1 })
  await watcher.leave()
}

async function aDelayedWillWaits () {
  const watcher = await Peer.connect('watcher')
  await watcher.subscribe('wills/#', { qos: 1 })
  const lost = await Peer.connect('lost', {
    properties: { sessionExpiryInterval: 100 },
    will: { topic: 'wills/lost', payload: Buffer.from('gone'), qos: 1, retain: false, properties: { willDelayInterval: 1 } }
  })
  lost.vanish()
  await watcher.expectNothing()
  await watcher.expect('wills/lost', 'gone')
  await watcher.leave()
}

async function propertiesComeAlong () {
  const subscriber = await Peer.connect('s')
  const publisher = await Peer.connect('p')
  await subscriber.subscribe('t', { qos: 1, properties: { subscriptionIdentifier: 77 } })
  await publisher.publish('t', 'x', {
    qos: 1,
    properties: {
      userProperties: { b: ['1', '2'], a: '3' },
      contentType: 'text/plain',
      responseTopic: 're/ply',
      correlationData: Buffer.from([0, 255]),
      payloadFormatIndicator: true,
      messageExpiryInterval: 60
    }
  })
  const { properties } = await subscriber.expect('t', 'x', { qos: 1 })
  assert.deepStrictEqual({ ...properties.userProperties }, { b: ['1', '2'], a: '3' })
  assert.strictEqual(properties.contentType, 'text/plain')
  assert.strictEqual(properties.responseTopic, 're/ply')
  assert.ok(properties.correlationData.equals(Buffer.from([0, 255])))
  assert.strictEqual(properties.payloadFormatIndicator, true)
  assert.ok(properties.messageExpiryInterval >= 58 && properties.messageExpiryInterval <= 60)
  assert.strictEqual(properties.subscriptionIdentifier, 77)
  await subscriber.leave()
  await publisher.leave()
}

async function topicAliasesWorkBothWays () {
  const subscriber = await Peer.connect('s', { properties: { topicAliasMaximum: 5 } })
  const publisher = await Peer.connect('p', { autoAssignTopicAlias: true })
  assert.ok(publisher.connack.properties.topicAliasMaximum > 0)
  await subscriber.subscribe('a/#')
  for (let number = 0; number < 20; number++) publisher.client.publish('a/long/topic', `${number}`)
  for (let number = 0; number < 20; number++) await subscriber.expect('a/long/topic', `${number}`)
  await subscriber.leave()
  await publisher.leave()
}

async function membersOfAGroupShare () {
  const publisher = await Peer.connect('p')
  const members = []
  for (let number = 0; number < 3; number++) members.push(await Peer.connect(`m${number}`))
  for (const member of members) await member.subscribe('$share/group/work/#', { qos: 1 })
  for (let number = 0; number < 60; number++) await publisher.publish(`work/${number}`, `${number}`, { qos: 1 })
  await new Promise((resolve) => setTimeout(resolve, 300))
  const counts = members.map((member) => member.messages.items.length)
  assert.strictEqual(counts.reduce((sum, count) => sum + count), 60, `got ${counts}`)
  assert.ok(counts.every((count) => count > 0), `got ${counts}`)
  for (const peer of [publisher, ...members]) await peer.leave()
}

async function aSecondConnectionTakesOver () {
  const first = await Peer.connect('same')
  const second = await Peer.connect('same')
  assert.strictEqual((await first.disconnects.get('DISCONNECT')).reasonCode, 0x8e)
  await first.closes.get('close')
  await second.leave()
}

async function aRequestIsAnswered () {
  const server = await Peer.connect('server')
  const client = await Peer.connect('client')
  await server.subscribe('service', { qos: 1 })
  await client.subscribe('answers', { qos: 1 })
  await client.publish('service', '2+2', { qos: 1, properties: { responseTopic: 'answers', correlationData: Buffer.from('7') } })
  const request = await server.expect('service', '2+2')
  await server.publish(request.properties.responseTopic, '4', {
    qos: 1, properties: { correlationData: request.properties.correlationData }
  })
  const answer = await client.expect('answers', '4')
  assert.strictEqual(answer.properties.correlationData.toString(), '7')
  await server.leave()
  await client.leave()
}

async function aSilentClientIsKeptByItsPings () {
  const silent = await Peer.connect('silent', { keepalive: 1 })
  await silent.subscribe('t')
  await new Promise((resolve) => setTimeout(resolve, 2500))
  await silent.publish('t', 'alive')
  await silent.expect('t', 'alive')
  await silent.leave()
}

const forBoth = [
  everyQosArrivesInOrder, retainedMessagesAreKeptAndDeleted, aBigPayloadArrivesWhole, aSessionIsResumed,
  aWillTellsOfALostClient
]
const for5 = [
  aDelayedWillWaits, propertiesComeAlong, topicAliasesWorkBothWays, membersOfAGroupShare, aSecondConnectionTakesOver,
  aRequestIsAnswered, aSilentClientIsKeptByItsPings
]
run([
  ...versions.flatMap(([name, level]) => forBoth.map((scenario) => [`${scenario.name} in ${name}`, () => scenario(level)])),
  ...for5.map((scenario) => [scenario.name, scenario])
])
