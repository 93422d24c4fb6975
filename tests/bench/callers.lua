-- For wrk: each request is another caller's. A policy that asks for this header judges each anew.
local number = 0

request = function()
  number = number + 1
  wrk.headers["x-bench-caller"] = tostring(number)
  return wrk.format()
end
