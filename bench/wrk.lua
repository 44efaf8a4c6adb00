-- One request from a file, again and again; at the end one line of JSON.
local path = os.getenv("BENCH_REQUEST")
local file = assert(io.open(path, "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer " .. os.getenv("BENCH_KEY")
file:close()

-- Where a word is given, each request has another one in place of @@.
local word = os.getenv("BENCH_UNIQUE")
if word then
    local template, count = wrk.body, 0
    request = function()
        count = count + 1
        local body = template:gsub("@@", word .. count)
        return wrk.format(nil, nil, nil, body)
    end
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'BENCH {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"wrong_status":%d,"broken":%d}\n',
        summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
        errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
