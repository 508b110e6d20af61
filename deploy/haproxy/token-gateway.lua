-- Asks a gateway about each request. txn.token_gateway_allows is true only where it answered 200.
local url = "http://127.0.0.1:8084/haproxy"
local timeout_ms = 2000

-- All that the gateway looks at; one value stays one, and two stay two.
local asked = { "authorization", "x-api-key", "dpop" }
-- Replaced by what the gateway answers, and taken off where that is empty. Those that rules give to the service belong here too.
local answered = { "authorization", "x-api-key", "dpop", "x-forwarded-user" }
local of_refusal = { "content-type", "cache-control", "www-authenticate", "dpop-nonce", "retry-after" }

local function first(values)
  return values and (values[0] or values[1])
end

core.register_action("token-gateway", { "http-req" }, function(txn)
  txn:set_var("txn.token_gateway_allows", false)
  local received = txn.http:req_get_headers()
  local headers = {
    ["x-forwarded-method"] = { txn.f:method() },
    ["x-forwarded-uri"] = { txn.f:pathq() },
    ["x-forwarded-host"] = { first(received["host"]) or "" },
    ["x-forwarded-proto"] = { txn.f:ssl_fc() and txn.f:ssl_fc() ~= 0 and "https" or "http" },
    ["x-forwarded-for"] = { txn.f:src() },
  }
  for _, name in ipairs(asked) do
    local values = {}
    for _, value in pairs(received[name] or {}) do
      table.insert(values, value)
    end
    if #values > 0 then
      headers[name] = values
    end
  end

  local answer = core.httpclient():get({ url = url, headers = headers, timeout = timeout_ms })
  local status = answer and answer.status or 0
  if status == 200 then
    for _, name in ipairs(answered) do
      local value = first(answer.headers[name])
      txn.http:req_del_header(name)
      if value and value ~= "" then
        txn.http:req_add_header(name, value)
      end
    end
    txn:set_var("txn.token_gateway_allows", true)
  elseif status >= 400 and status < 500 then
    local reply = txn:reply({ status = status, body = answer.body })
    for _, name in ipairs(of_refusal) do
      local value = first(answer.headers[name])
      if value then
        reply:add_header(name, value)
      end
    end
    txn:done(reply)
  end
end)
