"""A resource server that accepts internal tokens, fed by the JWKS URL alone."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt

issuer, audience = os.environ["ISSUER"], os.environ["AUDIENCE"]

keys = jwt.PyJWKClient(os.environ["JWKS_URL"], lifespan=60, cooldown_duration=1, timeout=2)


def verify(token: str) -> dict:
    """The claims of an internal token; raises jwt.PyJWTError for anything else."""
    decoded = jwt.decode_complete(
        token,
        keys.get_signing_key_from_jwt(token),
        algorithms=["ES256"],
        issuer=issuer,
        audience=audience,
        leeway=5,
        options={"require": ["exp", "iss", "aud", "sub"]},
    )
    if decoded["header"].get("typ") != "at+jwt":
        raise jwt.InvalidTokenError("no access token (RFC 9068 section 4)")
    return decoded["payload"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        try:
            status, body = 200, verify(token)["sub"] if scheme == "Bearer" else None
            if body is None:
                raise jwt.InvalidTokenError("no token")
        except jwt.PyJWTError as error:
            status, body = 401, str(error)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
