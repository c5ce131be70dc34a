"""Every limit on what the callers may take together, and why it has this value.

What one request may hold is said by the ranges of its fields; how long the queue is and what a
prompt may have, by the configuration. A limit "of a user" never counts what administrators do: they
are to get in when somebody else fills the place.
"""

KIB, MIB = 1 << 10, 1 << 20

# ---- connections -------------------------------------------------------------------------------

MAX_CONNECTIONS = 256  # fewer where a process may have few descriptors, see below
DESCRIPTORS_OF_A_CONNECTION = 3  # the client's, the proxy's to gRPC, and gRPC's
OTHER_DESCRIPTORS = 96  # left for all else: gRPC 1.51 never accepts again after a lack of them
RESERVED_CONNECTIONS = 8  # of these, for administrators only
CONNECTIONS_OF_A_USER = 128  # and half of what there may be: nobody keeps all others out
CONNECTIONS_A_SECOND = 50.0  # of a user, in the long run: one costs 0.2 ms of the service
CONNECTIONS_AT_ONCE = 512.0  # of a user, after a pause: every client of a machine that starts
HANDSHAKE_SECONDS = 20.0  # until a new connection has shown that it speaks HTTP/2
HELD_BYTES = 64 * KIB  # most of one direction that is held while its reader is slow
UNREAD_SECONDS = 80.0  # for a client to take some of what is held; gRPC's keepalive needs as long
ACCEPT_PAUSE_SECONDS = 1.0  # while the process is out of descriptors

# ---- traffic of a user -------------------------------------------------------------------------

# Every frame costs processor time, whatever it says: floods of pings, settings, priorities, resets
# or window updates differ in nothing else. Above this pace a user's connections are read slowly.
TRAFFIC_A_SECOND = 4.0 * MIB  # bytes: four of the largest prompts
TRAFFIC_AT_ONCE = 8.0 * MIB
FRAME_COST = 100.0  # bytes a frame counts for beside its own: at most 38,000 frames a second
CALLS_A_SECOND = 250.0  # that a user begins: one costs 0.5 ms of the service, whatever it asks
CALLS_AT_ONCE = 256.0  # each takes 40 KB until it is answered or refused
WAITING_CALLS = 8192  # that gRPC holds before it cancels calls, and it does not ask whose
PINGS_A_SECOND = 2.0  # of a connection on which nothing is answered
PINGS_AT_ONCE = 16.0  # gRPC 1.51 needs 3 KB for each that it finds too many and cannot say so
METERED_READ_BYTES = 16 * KIB  # read at a time, and so the most by which the pace is exceeded

# ---- calls -------------------------------------------------------------------------------------

CALLS_OF_A_USER = 256
CALLS_OF_ALL_USERS = 448  # what is beyond them is for administrators
RETRY_SECONDS = 1.0
STREAMS_OF_A_CONNECTION = 320  # above the calls of a user: who has too many hears the reason
UPLOADS_OF_A_USER = (
    4  # calls whose requests are a stream: each may hold a message that is not whole
)

# ---- requests ----------------------------------------------------------------------------------

# gRPC has one limit for all methods, and holds a message until it is whole: so only so many of a
# user are received at a time, and the others wait, of each no more than the window.
MESSAGE_BYTES = 4 * MIB + 64 * KIB  # AddModel's chunk of 4 MiB, a million of Detokenize's ids
SMALL_MESSAGE_BYTES = 16 * KIB  # every other method: names and ids of 256 bytes
WINDOW_BYTES = 8 * KIB  # of a stream that nobody reads yet
RECEIVING_OF_A_USER = 2
RECEIVE_SECONDS = 20.0  # for a request to arrive, or to wait until those before it have arrived
MESSAGE_SECONDS = 300.0  # between the messages of a stream of requests
ANSWER_SECONDS = 60.0  # for a client to read an answer that is one message
METADATA_BYTES = 8 * KIB  # of a call's headers
HEADER_BLOCK_BYTES = 32 * KIB  # of them as sent: gRPC 1.51 parses a long one anew with each frame
