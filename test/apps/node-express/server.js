const compression = require('compression');
const express = require('express');
const helmet = require('helmet');
const morgan = require('morgan');
const { WebSocketServer } = require('ws');

const guests = [];
const app = express();
app.set('trust proxy', true);
app.use(morgan('combined'), helmet(), compression(), express.json());
app.use(express.static('public'));
app.get('/guests', (req, res) => res.json(guests));
app.post('/guests', (req, res) => {
  guests.push(String(req.body.name));
  res.status(201).json({ guests: guests.length });
});
app.get('/whoami', (req, res) => res.json({ dyno: process.env.DYNO, node: process.version, env: process.env.NODE_ENV }));

const server = app.listen(process.env.PORT, () => console.log(`listening on ${process.env.PORT}`));
const sockets = new WebSocketServer({ server, path: '/echo' });
sockets.on('connection', (socket) => socket.on('message', (data) => socket.send(data.toString())));

process.on('SIGTERM', () => {
  sockets.clients.forEach((socket) => socket.close());
  server.close(() => process.exit(0));
});
