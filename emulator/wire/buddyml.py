"""BuddyML, the XML in which the activation service draws Setup Assistant pages: errors and the activation lock (2.6).

Read with expat and without entities: a document type declaration is refused before anything in it is looked at.
"""

from dataclasses import dataclass, field
from typing import Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from certs.errors import MalformedMessage

MAX_BYTES: Final = 256 * 1024
MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One text field of a form."""

    id: str
    label: str = ""
    placeholder: str = ""
    secure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialForm:
    """A page that wants input; `server_info` is posted back verbatim beside the rows' values."""

    title: str = ""
    description: str = ""
    rows: tuple[Row, ...] = ()
    server_info: dict[str, str] = field(default_factory=dict)
    alert: str | None = None  # the last input was wrong

    @property
    def is_auth_required(self) -> bool:
        """True when the form asks for credentials: an activation lock."""
        return "isAuthRequired" in self.server_info


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One answer: a fatal error, an acknowledgement, or a form."""

    error_title: str | None = None
    acknowledged: bool = False
    form: CredentialForm = field(default_factory=CredentialForm)


def decode(data: bytes) -> Page:
    """Read a document by the paths and in the order that clients use. Raises MalformedMessage."""
    root = _tree(data)
    if root.tag != "xmlui":
        raise MalformedMessage("BuddyML", "<xmlui> as its root", root.tag)
    bar = root.find("navigationBar")
    if bar is not None and bar.get("title") is not None:
        return Page(error_title=bar.get("title"))
    client = root.find("clientInfo")
    if client is not None and client.get("ack-received") == "true":
        return Page(acknowledged=True)
    alert = root.find("alert")
    title = root.find("page/navigationBar")
    server = root.find("serverInfo")
    form = CredentialForm(
        title="" if title is None else title.get("title", ""),
        description=_description(root),
        rows=tuple(_row(item) for item in root.findall("page//editableTextRow")),
        server_info={} if server is None else dict(server.attrib),
        alert=None if alert is None else alert.get("title", ""),
    )
    if form == CredentialForm():
        raise MalformedMessage("BuddyML", "an error, an acknowledgement or a form")
    return Page(form=form)


def _row(item: Element) -> Row:
    name = item.get("id")
    if not name:
        raise MalformedMessage("BuddyML editableTextRow", "an id")
    return Row(
        id=name,
        label=item.get("label", ""),
        placeholder=item.get("placeholder", ""),
        secure=item.get("secure") == "true",
    )


def _description(root: Element) -> str:
    for section in root.findall("page/tableView/section"):
        footer = section.find("footer")
        if footer is not None and footer.get("url") is None and footer.text:
            return footer.text.strip()
        if section.get("footer") and section.get("footerLinkURL") is None:
            return section.get("footer", "")
    return ""


def _tree(data: bytes) -> Element:
    if len(data) > MAX_BYTES:
        raise MalformedMessage("BuddyML", f"at most {MAX_BYTES} bytes", f"{len(data)} bytes")
    builder = TreeBuilder()
    depth = elements = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth, elements = depth + 1, elements + 1
        if depth > MAX_DEPTH or elements > MAX_ELEMENTS:
            raise MalformedMessage(
                "BuddyML", f"at most {MAX_ELEMENTS} elements and {MAX_DEPTH} levels", "more"
            )
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def doctype(*declaration: object) -> None:
        raise MalformedMessage("BuddyML", "no document type declaration")

    parser = expat.ParserCreate("UTF-8")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
        return builder.close()
    except MalformedMessage:
        raise
    except (expat.ExpatError, ParseError, ValueError, AssertionError) as error:
        raise MalformedMessage("BuddyML", "well-formed XML", str(error)) from error


def encode_error(title: str) -> bytes:
    """A fatal error page: nothing but its title counts."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<xmlui style="setupAssistant">'
        f"<navigationBar title={quoteattr(title)}/></xmlui>\n"
    ).encode()


def encode_form(form: CredentialForm) -> bytes:
    """A page with text fields, in the places where host tools look for them (9.1)."""
    rows = "\n".join(_row_element(row) for row in form.rows)
    info = "".join(f" {name}={quoteattr(value)}" for name, value in form.server_info.items())
    alert = "" if form.alert is None else f"\n<alert title={quoteattr(form.alert)}/>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<xmlui style="setupAssistant"><page name="lock">'
        f'<navigationBar title={quoteattr(form.title)} hidesBackButton="false"/>\n'
        f'<tableView><section footer="">{rows}</section>\n'
        f"<section><footer>{_escaped(form.description)}</footer></section></tableView></page>{alert}\n"
        f"<serverInfo{info}/></xmlui>\n"
    ).encode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _row_element(row: Row) -> str:
    secure = ' secure="true"' if row.secure else ""
    return (
        f"<editableTextRow id={quoteattr(row.id)} label={quoteattr(row.label)}"
        f" placeholder={quoteattr(row.placeholder)}{secure}/>"
    )
