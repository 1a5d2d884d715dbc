"""Values for property tests of the codecs."""

from datetime import UTC, datetime

from hypothesis import strategies as st

from emulator.wire import plist_xml

# Short names and words, as most keys and values are.
text = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), max_size=10)

plist_text = st.text(st.characters(codec="utf-8").filter(plist_xml.is_text), max_size=12)
scalars = st.one_of(
    plist_text,
    st.booleans(),
    st.integers(plist_xml.MIN_INTEGER, plist_xml.MAX_INTEGER),
    st.floats(allow_nan=False),
    st.binary(max_size=120),
    st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)).map(
        lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
    ),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plist_text, inner, max_size=3),
)
fields = st.dictionaries(plist_text, values, max_size=5)
