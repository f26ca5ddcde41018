-- Keeps a snapshot if it is newer than the one held, and rings the bell if so (P2).
-- KEYS: the snapshot. ARGV: generation, n, body, channel, message. Answers 1 if it was kept, 0 if one as new was held.
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
    redis.call('DEL', KEYS[1])
end
local held = redis.call('HMGET', KEYS[1], 'generation', 'n')
local held_generation, held_n = tonumber(held[1] or ''), tonumber(held[2] or '')
local generation, n = tonumber(ARGV[1]), tonumber(ARGV[2])
if held_generation and held_n and (held_generation > generation or (held_generation == generation and held_n >= n)) then
    return 0
end
redis.call('HSET', KEYS[1], 'generation', ARGV[1], 'n', ARGV[2], 'body', ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
