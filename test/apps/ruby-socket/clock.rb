$stdout.sync = true
loop do
  puts Time.now.utc
  sleep 60
end
