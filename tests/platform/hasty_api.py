"""bin/api with little patience, so that a test need not wait for it to hang up."""

from api import http
from bin import bounded_http
from bin.commands.api import main
from bin.wiring import run

if __name__ == "__main__":
    bounded_http.HEAD_S = http.BODY_S = 0.3
    run(main)
