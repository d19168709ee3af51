"""What may happen on the application's end of a connection, in which state, and what follows.

Two rules about what is in the table and what is not:

- It is about application records with the id of the request in progress, and BEGIN_REQUEST.
  Everything else has the same answer in every state: management records (id 0) are answered,
  records with another id and unknown types are passed over (3.3: an id is inactive until its
  BEGIN_REQUEST and after its END_REQUEST).
- The state is that of receiving. Answering needs no state but the request id: an early answer
  (413, 408, 431) is as legal as one after the whole body, and so is finishing the answer to a
  peer that has closed its sending end.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Final, Mapping, Union

from workers.fastcgi.records import ProtocolStatus


class State(IntEnum):
    IDLE = 0  # no request
    PARAMS = 1  # BEGIN_REQUEST came, the parameters are not complete
    BODY = 2  # the parameters are complete, the body is not
    ANSWERING = 3  # nothing more is wanted from the peer
    ABORTED = 4  # the same, and it asked for an end
    CLOSED = 5  # nothing more is read


class Verdict(Enum):
    IGNORED = "passed over"
    VIOLATION = "the peer broke the protocol"
    IMPOSSIBLE = "the caller, or connection.py, used the protocol wrongly"


Move = Union[State, ProtocolStatus, Verdict]

IGNORED: Final = Verdict.IGNORED
VIOLATION: Final = Verdict.VIOLATION
IMPOSSIBLE: Final = Verdict.IMPOSSIBLE
CANT_MPX_CONN: Final = ProtocolStatus.CANT_MPX_CONN
UNKNOWN_ROLE: Final = ProtocolStatus.UNKNOWN_ROLE

# State -> what happened -> the state that follows, or the status with which a BEGIN_REQUEST is
# refused, or a verdict. The names are those of records, "end" being the empty record that ends a
# stream, and: "begin again" has the id in progress, "begin other role" is not for a responder;
# "too large" is our finding that the parameters exceed a ceiling, "answered" our END_REQUEST;
# "broken" is whatever cannot be read on from, "closed" the end of the peer's data.
MOVES: Mapping[State, Mapping[str, Move]] = {
    State.IDLE: {
        "begin": State.PARAMS,
        "begin again": IMPOSSIBLE,
        "begin other role": UNKNOWN_ROLE,
        "params": IMPOSSIBLE,
        "params end": IMPOSSIBLE,
        "too large": IMPOSSIBLE,
        "stdin": IMPOSSIBLE,
        "stdin end": IMPOSSIBLE,
        "abort": IMPOSSIBLE,
        "answered": IMPOSSIBLE,
        "closed": State.CLOSED,
        "broken": State.CLOSED,
    },
    State.PARAMS: {
        "begin": CANT_MPX_CONN,
        "begin again": IGNORED,
        "begin other role": CANT_MPX_CONN,
        "params": State.PARAMS,
        "params end": State.BODY,
        "too large": State.ANSWERING,
        "stdin": VIOLATION,
        "stdin end": VIOLATION,
        "abort": State.ABORTED,
        "answered": State.IDLE,
        "closed": State.CLOSED,
        "broken": State.CLOSED,
    },
    State.BODY: {
        "begin": CANT_MPX_CONN,
        "begin again": IGNORED,
        "begin other role": CANT_MPX_CONN,
        "params": IGNORED,
        "params end": IGNORED,
        "too large": State.ANSWERING,  # too many, counted when they were complete
        "stdin": State.BODY,
        "stdin end": State.ANSWERING,
        "abort": State.ABORTED,
        "answered": State.IDLE,
        "closed": State.CLOSED,
        "broken": State.CLOSED,
    },
    State.ANSWERING: {
        "begin": CANT_MPX_CONN,
        "begin again": IGNORED,
        "begin other role": CANT_MPX_CONN,
        "params": IGNORED,
        "params end": IGNORED,
        "too large": IMPOSSIBLE,
        "stdin": IGNORED,
        "stdin end": IGNORED,
        "abort": State.ABORTED,
        "answered": State.IDLE,
        "closed": State.CLOSED,
        "broken": State.CLOSED,
    },
    State.ABORTED: {
        "begin": CANT_MPX_CONN,
        "begin again": IGNORED,
        "begin other role": CANT_MPX_CONN,
        "params": IGNORED,
        "params end": IGNORED,
        "too large": IMPOSSIBLE,
        "stdin": IGNORED,
        "stdin end": IGNORED,
        "abort": IGNORED,
        "answered": State.IDLE,
        "closed": State.CLOSED,
        "broken": State.CLOSED,
    },
    State.CLOSED: {
        "begin": IMPOSSIBLE,
        "begin again": IMPOSSIBLE,
        "begin other role": IMPOSSIBLE,
        "params": IMPOSSIBLE,
        "params end": IMPOSSIBLE,
        "too large": IMPOSSIBLE,
        "stdin": IMPOSSIBLE,
        "stdin end": IMPOSSIBLE,
        "abort": IMPOSSIBLE,
        "answered": State.CLOSED,  # the request that was in progress when the peer closed
        "closed": IMPOSSIBLE,
        "broken": IMPOSSIBLE,
    },
}
