-- wrk: chat completions with prompts of PROMPT_BYTES, taken in turn from 64.
local bytes = tonumber(os.getenv("PROMPT_BYTES") or "200")
local stream = os.getenv("STREAM") == "1" and "true" or "false"
local model = os.getenv("MODEL") or "bench"
local bodies = {}
for index = 1, 64 do
  local head = "prompt " .. index .. ": "
  local text = head .. string.rep("lorem ipsum dolor sit amet ", bytes)
  text = string.sub(text, 1, bytes)
  bodies[index] = '{"model":"' .. model .. '","stream":' .. stream
    .. ',"messages":[{"role":"user","content":"' .. text .. '"}]}'
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local turn = 0
request = function()
  turn = turn % 64 + 1
  return wrk.format(nil, nil, nil, bodies[turn])
end
-- Percentiles in microseconds, one line that the caller reads.
done = function(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  print(string.format("RESULT %d %d %.0f %.0f %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), failed))
end
