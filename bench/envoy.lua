-- The load of bench/envoy.ts: asks what the plan has in turn, and counts the answers by what was asked and what came.
-- A line of the plan: kind, path, code of the refusal or `-`, and headers (name, value, name, value ...), tabs between.

local threads = {}

function setup(thread)
  thread:set("offset", #threads)
  table.insert(threads, thread)
end

local requests = {}
local codes = {}
local at = 0
counts = {}

function init(args)
  for line in io.lines(args[1]) do
    local fields = {}
    for field in line:gmatch("[^\t]+") do
      table.insert(fields, field)
    end
    local headers = {}
    for index = 4, #fields, 2 do
      headers[fields[index]] = fields[index + 1]
    end
    codes[fields[2]] = fields[3]
    table.insert(requests, wrk.format("GET", fields[2], headers))
  end
  at = offset * 7
end

function request()
  at = at + 1
  return requests[at % #requests + 1]
end

-- Envoy says in x-asked what it was asked.
function response(status, headers, body)
  local asked = headers["x-asked"] or "/unmarked/"
  local kind = asked:match("^/(%l+)/") or "unmarked"
  local code = body:match('"code":"([%l_]+)"')
  local outcome = "wrong_" .. status
  if status == 200 and body:match("<([^<]*)>$") == asked then
    outcome = "allowed"
  elseif status == 401 and code ~= nil and code == codes[asked] then
    outcome = "refused"
  elseif status == 503 then
    outcome = code == nil and "broken" or "unavailable"
  end
  local key = kind .. " " .. outcome
  counts[key] = (counts[key] or 0) + 1
end

function done(summary)
  local total = {}
  for _, thread in ipairs(threads) do
    for key, count in pairs(thread:get("counts")) do
      total[key] = (total[key] or 0) + count
    end
  end
  for key, count in pairs(total) do
    print("answers " .. key .. " " .. count)
  end
  for _, name in ipairs({ "connect", "read", "write", "timeout" }) do
    print("errors " .. name .. " " .. summary.errors[name])
  end
end
