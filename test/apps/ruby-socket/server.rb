# A web server of one page on Ruby's own sockets.
require 'json'
require 'socket'

$stdout.sync = true
server = TCPServer.new('0.0.0.0', Integer(ENV.fetch('PORT')))
trap('TERM') { exit }
puts "listening on #{ENV['PORT']}"

loop do
  Thread.start(server.accept) do |client|
    method, path, = client.gets.to_s.split
    until (line = client.gets.to_s.chomp).empty? do end
    status = path == '/' ? '200 OK' : '404 Not Found'
    body = JSON.generate(method: method, path: path, ruby: RUBY_VERSION, dyno: ENV['DYNO']) + "\n"
    client.write "HTTP/1.1 #{status}\r\nContent-Type: application/json\r\nContent-Length: #{body.bytesize}\r\nConnection: close\r\n\r\n#{body}"
  ensure
    client.close
  end
end
