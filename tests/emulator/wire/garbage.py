"""Input that a decoder must survive: random bytes, and good messages with damage."""

from collections.abc import Callable

from hypothesis import strategies as st

from certs.errors import CertsError, MalformedMessage

garbage = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=60).map(lambda tail: b"bplist00" + tail),
    st.binary(max_size=60).map(lambda tail: b'<plist version="1.0"><dict>' + tail),
    st.binary(max_size=60).map(lambda tail: b"\x30\x80\x06\x09" + tail),
    st.binary(max_size=60).map(lambda tail: b'{"' + tail),
    st.sampled_from(
        [b"", b"{}", b"[]", b"null", b"\x30", b"<plist/>", b"[" * 100_000, b"\xff\xfe"]
    ),
)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """`good` with one to three changes: bytes replaced, cut out, doubled, or the end cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.integers(1, 12))
        match draw(st.sampled_from(["replace", "cut", "double", "truncate"])):
            case "replace":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
            case "cut":
                del data[at : at + size]
            case "double":
                data[at:at] = data[at : at + size]
            case "truncate":
                del data[at:]
    return bytes(data)


def survives(
    decode: Callable[[bytes], object],
    data: bytes,
    allowed: tuple[type[CertsError], ...] = (MalformedMessage,),
) -> None:
    """Decoding returns something or raises what it says it raises."""
    try:
        decode(data)
    except allowed:
        return
