"""A room server on uWebSockets, by its Python binding: publishing is one call a message from Python, delivering is C++."""

import os
import sys

from socketify import App, AppListenOptions, CompressOptions, OpCode


def upgrade(response, request, context):
    response.upgrade(
        request.get_header("sec-websocket-key"),
        request.get_header("sec-websocket-protocol"),
        request.get_header("sec-websocket-extensions"),
        context,
        request.get_url(),
    )


def enter(socket):
    if socket.get_user_data() != "/echo":
        socket.subscribe(socket.get_user_data())


def say(socket, message, opcode):
    room = socket.get_user_data()
    if room == "/echo":
        socket.send(message, opcode)
    else:
        # By the application: a socket's own publishing leaves itself out.
        app.publish(room, message, opcode)


app = App()
app.ws(
    "/*",
    {
        "compression": CompressOptions.DISABLED,
        "max_payload_length": 1024 * 1024,
        "send_pings_automatically": True,
        "upgrade": upgrade,
        "open": enter,
        "message": say,
    },
)
app.listen(AppListenOptions(port=int(sys.argv[1]), host="127.0.0.1"))
# Not app.run(): it polls for Python's asyncio too, which nothing here needs.
app.loop.uv_loop.run()
