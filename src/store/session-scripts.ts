/** Milliseconds that a claim which ran out is left to its holder, counted from when somebody notices. */
export const ORPHAN_GRACE = 2000;

/**
 * Every change of a session record, as Redis runs it: each script is one atomic step, decides by Redis' own clock, and
 * does nothing when the record is gone.
 *
 * Fields: gen, kid, sealed, about, revocation, created, absolute, touched; while a refresh runs: claim, claimed_at,
 * claimed_until; after one: committed_by; after a failed one: retry_at, doubtful_since.
 */
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

export const sessionScripts = {
  /** ARGV: kid, sealed, created, absolute, idle, about, revocation or empty */
  create: `
${NOW}
local ttl = math.min(tonumber(ARGV[5]), tonumber(ARGV[4]) - tonumber(ARGV[3]))
-- Not without need: after a first write a script may go on past maxmemory, and a full store must say no.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'gen', 1, 'kid', ARGV[1], 'sealed', ARGV[2], 'created', ARGV[3],
  'absolute', ARGV[4], 'touched', now, 'about', ARGV[6])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'revocation', ARGV[7]) end
redis.call('PEXPIRE', KEYS[1], ttl)
return 1`,

  /** ARGV: idle */
  touch: `
local absolute = redis.call('HGET', KEYS[1], 'absolute')
if not absolute then return 0 end
${NOW}
local ttl = math.min(tonumber(ARGV[1]), tonumber(absolute) - now)
if ttl <= 0 then return redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'touched', now)
redis.call('PEXPIRE', KEYS[1], ttl)
return 1`,

  /** ARGV: gen, attempt, duration. Returns kind, remaining | kid, sealed, touched, milliseconds in doubt or -1 */
  claim: `
local r = redis.call('HMGET', KEYS[1], 'gen', 'claim', 'claimed_until', 'retry_at', 'doubtful_since', 'kid', 'sealed',
  'touched', 'claimed_at')
if not r[1] then return {'gone'} end
if r[1] ~= ARGV[1] then return {'superseded'} end
${NOW}
local doubtful = r[5]
if r[2] and r[2] ~= ARGV[2] then
  local left = (tonumber(r[3]) or 0) - now
  if left > 0 then return {'held', left} end
  -- Whoever held this claim did not come back in time. The refresh token may be spent, and the new one on its way here:
  -- after an outage of this store its finder must not be overtaken by somebody who spends the old one again.
  redis.call('HDEL', KEYS[1], 'claim', 'claimed_at', 'claimed_until')
  redis.call('HSET', KEYS[1], 'doubtful_since', doubtful or r[9] or now, 'retry_at', now + ${String(ORPHAN_GRACE)})
  return {'waiting', ${String(ORPHAN_GRACE)}}
end
local wait = (tonumber(r[4] or 0) or 0) - now
if wait > 0 and r[2] ~= ARGV[2] then return {'waiting', wait} end
redis.call('HSET', KEYS[1], 'claim', ARGV[2], 'claimed_at', now, 'claimed_until', now + tonumber(ARGV[3]))
return {'claimed', r[6], r[7], r[8], doubtful and now - (tonumber(doubtful) or 0) or -1}`,

  /** ARGV: gen, attempt, kid, sealed, about, revocation or empty, 1 to keep doubt */
  commit: `
local r = redis.call('HMGET', KEYS[1], 'gen', 'committed_by')
if not r[1] then return 'gone' end
if r[2] == ARGV[2] then return 'committed' end
if r[1] ~= ARGV[1] then return 'superseded' end
redis.call('HSET', KEYS[1], 'gen', tonumber(ARGV[1]) + 1, 'kid', ARGV[3], 'sealed', ARGV[4], 'about', ARGV[5],
  'committed_by', ARGV[2])
redis.call('HDEL', KEYS[1], 'claim', 'claimed_at', 'claimed_until', 'retry_at')
if ARGV[7] ~= '1' then redis.call('HDEL', KEYS[1], 'doubtful_since') end
if ARGV[6] ~= '' then redis.call('HSET', KEYS[1], 'revocation', ARGV[6])
else redis.call('HDEL', KEYS[1], 'revocation') end
return 'committed'`,

  /** ARGV: attempt, backoff, doubtful */
  release: `
local r = redis.call('HMGET', KEYS[1], 'claim', 'claimed_at', 'doubtful_since')
if r[1] ~= ARGV[1] then return 0 end
${NOW}
redis.call('HDEL', KEYS[1], 'claim', 'claimed_at', 'claimed_until')
redis.call('HSET', KEYS[1], 'retry_at', now + tonumber(ARGV[2]))
if ARGV[3] == '1' and not r[3] then redis.call('HSET', KEYS[1], 'doubtful_since', r[2]) end
return 1`,

  /**
   * KEYS: session, revocation, ended, all of one handle. ARGV: gen and attempt, or both empty for any; cause, milliseconds
   * to keep the envelope and the cause; channel, handle. Returns 0, or 1 and gen, kid, sealed, touched, about, revocation
   */
  end: `
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  redis.call('DEL', KEYS[1])
  return {0}
end
local r = redis.call('HMGET', KEYS[1], 'gen', 'claim', 'kid', 'sealed', 'touched', 'about', 'revocation')
if ARGV[1] ~= '' and (r[1] ~= ARGV[1] or (r[2] and r[2] ~= ARGV[2])) then return {0} end
-- First of all, and so that a full store lets the rest through.
redis.call('DEL', KEYS[1])
local keep = r[7] and tonumber(ARGV[4]) > 0
if keep then redis.call('SET', KEYS[2], r[7], 'PX', ARGV[4]) end
if tonumber(ARGV[5]) > 0 then redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[5]) end
-- Where the rights of this user do not reach to channels, the others find out by looking.
redis.pcall('PUBLISH', ARGV[6], 'ended ' .. ARGV[7] .. ' ' .. ARGV[3])
return {1, r[1], r[3], r[4], r[5], r[6], keep and 1 or 0}`,
} as const;

/** Ordered sets: indexes and queues. */
export const setScripts = {
  /** ARGV: milliseconds to live, highest score to forget or empty, then score and member of each */
  add: `
if ARGV[2] ~= '' then redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[2]) end
redis.call('ZADD', KEYS[1], unpack(ARGV, 3))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1`,

  /** ARGV: limit, score and member to begin after or both empty. Returns members and scores in turn */
  page: `
local from = 0
if ARGV[2] ~= '' then
  local rank = redis.call('ZRANK', KEYS[1], ARGV[3])
  if rank then
    from = rank + 1
  else
    -- It was removed meanwhile: begin where it would stand.
    from = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[2])
    local next = redis.call('ZRANGE', KEYS[1], from, from, 'WITHSCORES')
    while next[1] and tonumber(next[2]) == tonumber(ARGV[2]) and next[1] <= ARGV[3] do
      from = from + 1
      next = redis.call('ZRANGE', KEYS[1], from, from, 'WITHSCORES')
    end
  end
end
return redis.call('ZRANGE', KEYS[1], from, from + tonumber(ARGV[1]) - 1, 'WITHSCORES')`,

  /** ARGV: limit, lease. Returns the members that are due */
  claim: `
${NOW}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), member) end
return due`,

  /** ARGV: member, delay */
  postpone: `
${NOW}
return redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])`,
} as const;
