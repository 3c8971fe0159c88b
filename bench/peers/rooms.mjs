// A room server on npm's `ws`: the broadcast of its documentation, a Set for each room. Arguments: the port, and the
// directory whose node_modules hold the package.
import { createRequire } from 'node:module';

const [port, packages] = [Number(process.argv[2]), process.argv[3]];
const { WebSocketServer } = createRequire(`${packages}/`)('ws');
const rooms = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port, backlog: 4096, perMessageDeflate: false });

server.on('connection', (socket, request) => {
  socket.on('error', () => socket.terminate());
  if (request.url === '/echo') {
    socket.on('message', (data, binary) => socket.send(data, { binary }));
    return;
  }
  const room = rooms.get(request.url) ?? new Set();
  rooms.set(request.url, room.add(socket));
  socket.on('message', (data, binary) => {
    for (const member of room) member.send(data, { binary });
  });
  socket.on('close', () => {
    room.delete(socket);
    if (room.size === 0 && rooms.get(request.url) === room) rooms.delete(request.url);
  });
});
