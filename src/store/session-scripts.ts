/** Milliseconds that a claim which ran out is left to its holder, counted from when somebody notices. */
export const ORPHAN_GRACE = 2000;

/**
 * Every change of a session record, as Redis runs it: each script is one atomic step, decides by Redis' own clock, and
 * does nothing when the record is gone.
 *
 * Fields: gen, kid, sealed, created, absolute, touched; while a refresh runs: claim, claimed_at, claimed_until; after one:
 * committed_by; after a failed one: retry_at, doubtful_since.
 */
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

export const sessionScripts = {
  /** ARGV: kid, sealed, created, absolute, idle */
  create: `
${NOW}
local ttl = math.min(tonumber(ARGV[5]), tonumber(ARGV[4]) - tonumber(ARGV[3]))
-- Not without need: after a first write a script may go on past maxmemory, and a full store must say no.
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'gen', 1, 'kid', ARGV[1], 'sealed', ARGV[2], 'created', ARGV[3],
  'absolute', ARGV[4], 'touched', now)
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

  /** ARGV: gen, attempt, kid, sealed */
  commit: `
local r = redis.call('HMGET', KEYS[1], 'gen', 'committed_by')
if not r[1] then return 'gone' end
if r[2] == ARGV[2] then return 'committed' end
if r[1] ~= ARGV[1] then return 'superseded' end
redis.call('HSET', KEYS[1], 'gen', tonumber(ARGV[1]) + 1, 'kid', ARGV[3], 'sealed', ARGV[4], 'committed_by', ARGV[2])
redis.call('HDEL', KEYS[1], 'claim', 'claimed_at', 'claimed_until', 'retry_at', 'doubtful_since')
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

  /** ARGV: gen and attempt, or both empty for any */
  end: `
if ARGV[1] ~= '' then
  local r = redis.call('HMGET', KEYS[1], 'gen', 'claim')
  if r[1] ~= ARGV[1] or (r[2] and r[2] ~= ARGV[2]) then return 0 end
end
return redis.call('DEL', KEYS[1])`,

  /** Returns what was there: gen, kid, sealed, touched */
  take: `
local r = redis.call('HMGET', KEYS[1], 'gen', 'kid', 'sealed', 'touched')
redis.call('DEL', KEYS[1])
return r`,
} as const;
