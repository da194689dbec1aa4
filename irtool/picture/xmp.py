"""XMP packets: the orientation in them, packets larger than a JPEG segment, and claims on what a file no longer holds.

Extended XMP: Adobe XMP Specification Part 3 (2020), 1.1.3.1. Packets are edited by `xml.dom`, which keeps their
prefixes; a packet that it does not take is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import md5
from itertools import islice
from typing import TYPE_CHECKING
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from xml.dom.minidom import Document, Element

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_NOTE = "http://ns.adobe.com/xmp/note/"
_MAX_EDITED = 16 << 20
"""A larger packet is not edited: it would take many times its size."""

_MAX_REMOVED = 50  # elements of one name: a packet has one or two, and a hostile one must not cost more than its size

# Properties that point at what lies behind or beside the picture (videos of Google and Samsung phones, gain maps).
_DANGLING = (
    rb"(?:GCamera|MicroVideo|MotionPhoto|Camera):(?:MicroVideo|MotionPhoto)[A-Za-z]*",
    rb"(?:hdrgm|HDRGainMap|apdi|GainMap):[A-Za-z]+",
    rb"(?:Container|GContainer):Directory",
    rb"(?:GDepth|GImage|GAudio|GPano):(?:Data|Mime)",
)


def upright(packet: bytes) -> bytes:
    """The packet with its copy of the orientation set to 1."""
    packet = re.sub(rb"""(tiff:Orientation\s*=\s*["'])[2-8](?=["'])""", rb"\g<1>1", packet)
    return re.sub(rb"(<tiff:Orientation>\s*)[2-8](?=\s*<)", rb"\g<1>1", packet)


_SIDES = {True: rb"exif:PixelXDimension|tiff:ImageWidth", False: rb"exif:PixelYDimension|tiff:ImageLength"}


def with_dimensions(packet: bytes, width: int, height: int) -> bytes:
    """The packet with the dimensions that it states set to those given."""
    for across, names in _SIDES.items():
        value = str(width if across else height).encode()
        packet = re.sub(rb"((?:" + names + rb""")\s*=\s*["'])\d+(?=["'])""", rb"\g<1>" + value, packet)
        packet = re.sub(rb"(<(?:" + names + rb")>\s*)\d+(?=\s*<)", rb"\g<1>" + value, packet)
    return packet


def without_dangling(packet: bytes) -> bytes:
    """The packet without the properties that describe a video, a gain map or a further picture in the file."""
    for name in _DANGLING:
        packet = re.sub(rb"\s" + name + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""", b"", packet)
        packet = re.sub(rb"<(" + name + rb")(?:\s[^<>]*)?/>", b"", packet)
        for found in reversed(list(islice(re.finditer(rb"<(" + name + rb")(?:\s[^<>]*)?>", packet), _MAX_REMOVED))):
            end = packet.find(b"</" + found[1] + b">", found.end())
            if end >= 0:
                packet = packet[: found.start()] + packet[end + len(found[1]) + 3 :]
    return packet


def extended_guid(packet: bytes) -> bytes | None:
    """The digest by which a main packet names its extension."""
    found = re.search(rb"""xmpNote:HasExtendedXMP\s*(?:=\s*["']|>)\s*([0-9A-Fa-f]{32})""", packet)
    return found[1] if found else None


def without_extension(packet: bytes) -> bytes:
    """The packet without its reference to an extension."""
    packet = re.sub(rb"""\sxmpNote:HasExtendedXMP\s*=\s*["'][^"']*["']""", b"", packet)
    return re.sub(rb"<xmpNote:HasExtendedXMP>[^<]*</xmpNote:HasExtendedXMP>", b"", packet)


def merged(main: bytes, extension: bytes) -> bytes | None:
    """One packet of both, or None if either cannot be edited."""
    first, second = _document(without_extension(main)), _document(extension)
    if first is None or second is None:
        return None
    into, out = _first(first, "RDF"), _first(second, "RDF")
    if into is None or out is None:
        return None
    for described in list(_children(out)):
        for above in (out, second.documentElement):
            for name, value in list(above.attributes.items()) if above is not None else []:
                if name.startswith("xmlns:") and not described.hasAttribute(name):
                    described.setAttribute(name, value)
        into.appendChild(first.importNode(described, True))
    return _packet(first)


def split(packet: bytes, limit: int) -> tuple[bytes, bytes, bytes] | None:  # noqa: C901 (a walk over one tree)
    """A packet larger than `limit` as a main packet that is not, its extension, and the digest that joins them.

    The largest properties move to the extension. None if the packet cannot be edited, or no property can be moved.
    """
    document = _document(packet)
    if document is None or (rdf := _first(document, "RDF")) is None:
        return None
    rest = _document(b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s"/></x:xmpmeta>' % _RDF.encode())
    assert rest is not None
    position = _first(rest, "RDF")
    assert position is not None
    homes = [rest.importNode(described, False) for described in _children(rdf)]
    sizes: list[tuple[int, int, Element | str]] = []
    for place, described in enumerate(_children(rdf)):
        for name, value in list(described.attributes.items()):
            plain = name.startswith("xmlns") or name in ("rdf:about", "about")
            if not plain:
                homes[place].removeAttribute(name)
                sizes.append((len(value.encode()), place, name))
        sizes += [(len(child.toxml().encode()), place, child) for child in _children(described)]
        described.setAttribute("xmlns:xmpNote", _NOTE)
        # The namespaces that its properties use may be declared further up.
        for name, value in (*rdf.attributes.items(), *_root(document).attributes.items()):
            if name.startswith("xmlns:") and not homes[place].hasAttribute(name):
                homes[place].setAttribute(name, value)
    places = list(_children(rdf))
    if not places:
        return None
    room = limit - 200 - len(_packet(document))
    for size, place, item in sorted(sizes, key=lambda entry: -entry[0]):
        if room >= 0:
            break
        if isinstance(item, str):
            homes[place].setAttribute(item, places[place].getAttribute(item))
            places[place].removeAttribute(item)
        else:
            homes[place].appendChild(rest.importNode(item, True))
            places[place].removeChild(item)
        room += size
    for home in homes:
        position.appendChild(home)
    extension = _root(rest).toxml().encode()
    guid = md5(extension, usedforsecurity=False).hexdigest().upper().encode()
    places[0].setAttribute("xmpNote:HasExtendedXMP", guid.decode())
    main = _packet(document)
    return (main, extension, guid) if len(main) <= limit else None


def with_properties(packet: bytes | None, namespace: str, prefix: str, values: Mapping[str, str]) -> bytes | None:
    """The packet with these as the properties of a namespace, in place of those that it had; all else is kept.

    Args:
        packet: the packet, or None for a new one.
        namespace, prefix: of the properties.
        values: name -> text.

    Returns:
        The packet; None if it cannot be edited.
    """
    lines = "".join(f"\n  <{prefix}:{name}>{escape(value)}</{prefix}:{name}>" for name, value in values.items())
    described = (
        f'<rdf:Description rdf:about="" xmlns:rdf="{_RDF}" xmlns:{prefix}="{namespace}">{lines}\n</rdf:Description>\n'
    ).encode()
    if not packet:
        packet = (
            b"<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>\n"
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s">\n</rdf:RDF></x:xmpmeta>\n'
            b"<?xpacket end='w'?>" % _RDF.encode()
        )
    elif namespace.encode() in packet:
        document = _document(packet)
        if document is None:
            return None
        _remove(document, namespace)
        packet = _packet(document)
    # Put in as text: all other bytes of a packet stay as its maker wrote them.
    at = packet.rfind(b"</rdf:RDF>")
    return None if at < 0 else packet[:at] + described + packet[at:]


def properties(packet: bytes, namespace: str) -> dict[str, str]:
    """Name -> text of the simple properties of a namespace; none where the packet cannot be parsed."""
    document = _document(packet)
    if document is None:
        return {}
    found = {
        attribute.localName: attribute.value
        for described in document.getElementsByTagNameNS(_RDF, "Description")
        for attribute in described.attributes.values()
        if attribute.namespaceURI == namespace
    }
    for element in document.getElementsByTagNameNS(namespace, "*"):
        text = (node.data for node in element.childNodes if node.nodeType in (node.TEXT_NODE, node.CDATA_SECTION_NODE))
        found[element.localName] = "".join(text)
    return {str(name): value for name, value in found.items()}


def _remove(document: Document, namespace: str) -> None:
    """Take the properties of a namespace out, and what described nothing else."""
    for described in list(document.getElementsByTagNameNS(_RDF, "Description")):
        ours = [a for a in described.attributes.values() if a.namespaceURI == namespace]
        elements = [child for child in _children(described) if child.namespaceURI == namespace]
        for attribute in ours:
            described.removeAttributeNode(attribute)
        for element in elements:
            described.removeChild(element)
        if (ours or elements) and not _children(described) and not _is_said(described) and described.parentNode:
            described.parentNode.removeChild(described)


def _is_said(described: Element) -> bool:
    """Whether the attributes of a description say anything but what it is about."""
    return any(not name.startswith("xmlns") and not name.endswith("about") for name in described.attributes.keys())  # noqa: SIM118


def trimmed(packet: bytes) -> bytes:
    """The packet without the white space that editors leave at its end to grow into."""
    return re.sub(rb"[ \t\r\n]{16,}(?=<\?xpacket end)", b"\n", packet).rstrip(b" \t\r\n\0")


def _document(packet: bytes) -> Document | None:
    from xml.dom import minidom

    if len(packet) > _MAX_EDITED or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    # A packet between its processing instructions is no document: only the element is parsed.
    start, end = packet.find(b"<x:xmpmeta"), packet.rfind(b"</x:xmpmeta>")
    if start >= 0 and end >= 0:
        packet = packet[start : end + len(b"</x:xmpmeta>")]
    with suppress(ExpatError, ValueError, RecursionError):
        return minidom.parseString(packet.strip(b"\0"))
    return None


def _first(document: Document, name: str) -> Element | None:
    found = document.getElementsByTagNameNS(_RDF, name)
    return found[0] if found else None


def _root(document: Document) -> Element:
    element = document.documentElement
    assert element is not None
    return element


def _children(element: Element) -> list[Element]:
    return [node for node in element.childNodes if node.nodeType == node.ELEMENT_NODE]


def _packet(document: Document) -> bytes:
    return b"<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>\n%s\n<?xpacket end='w'?>" % (
        _root(document).toxml().encode()
    )
