"""Documents as people write them, and as attackers do: built here, none is kept in the repository."""

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence

import docx


def pdf_of(objects: Sequence[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalog."""
    out = bytearray(b"%PDF-1.7\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % place for place in places)
    out += b"trailer\n<< /Size %d /Root 1 0 R %s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, start)
    return bytes(out)


def stream(data: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(data), entries, data)


def page(contents: int, font: int = 3) -> bytes:
    resources = b"/Resources << /Font << /F1 %d 0 R >> >>" % font
    return b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] %s /Contents %d 0 R >>" % (resources, contents)


CATALOG = b"<< /Type /Catalog /Pages 2 0 R >>"
HELVETICA = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"


def pdf(*texts: str, title: str = "") -> bytes:
    """A PDF with one page per text."""
    first = 4
    kids = b" ".join(b"%d 0 R" % (first + 2 * number) for number in range(len(texts)))
    objects = [CATALOG, b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(texts)), HELVETICA]
    for number, text in enumerate(texts):
        contents = b"BT /F1 12 Tf 72 700 Td (%s) Tj ET" % text.encode("ascii")
        objects += [page(first + 2 * number + 1), stream(contents)]
    if not title:
        return pdf_of(objects)
    info = b"<< /Title (%s) >>" % title.encode("ascii")
    return pdf_of([*objects, info], b"/Info %d 0 R" % (len(objects) + 1))


def japanese_pdf(text: str) -> bytes:
    """One page whose font has no codes but glyph numbers, as Japanese PDFs do, and a table that leads back to text."""
    lines = b"\n".join(b"<%04X> <%s>" % (n, c.encode("utf-16-be").hex().encode()) for n, c in enumerate(text, start=1))
    table = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n1 begincodespacerange <0000> <FFFF> "
        b"endcodespacerange\n%d beginbfchar\n%s\nendbfchar endcmap end end" % (len(text), lines)
    )
    font = (
        b"<< /Type /Font /Subtype /Type0 /BaseFont /Mincho /Encoding /Identity-H /DescendantFonts [6 0 R] "
        b"/ToUnicode 7 0 R >>"
    )
    glyphs = b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /Mincho /DW 1000 >>"
    codes = b"".join(b"%04X" % number for number in range(1, len(text) + 1))
    pages = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
    contents = stream(b"BT /F1 12 Tf 72 700 Td <%s> Tj ET" % codes)
    return pdf_of([CATALOG, pages, font, page(5), contents, glyphs, stream(table)])


def encrypted_pdf(password: str) -> bytes:
    import pypdf

    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf("Top secret.")))
    writer.encrypt(password, "owner", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def circular_pdf() -> bytes:
    """Its page tree is its own child, and so is the form that its page draws."""
    pages = b"<< /Type /Pages /Kids [2 0 R 2 0 R 4 0 R] /Count 3 /Parent 2 0 R >>"
    form = stream(b"/Fm Do /Fm Do", b"/Type /XObject /Subtype /Form /Resources << /XObject << /Fm 3 0 R >> >>")
    leaf = b"<< /Type /Page /Parent 2 0 R /Resources << /XObject << /Fm 3 0 R >> >> /Contents 5 0 R >>"
    return pdf_of([CATALOG, pages, form, leaf, stream(b"/Fm Do")])


def exploding_pdf(doublings: int = 40) -> bytes:
    """Its page draws a form that draws a form twice, and so on: 2^n times the same text."""
    first = 6
    forms = []
    for level in range(doublings):
        following = first + level + 1
        inner = b"/Resources << /Font << /F1 3 0 R >> /XObject << /Fm %d 0 R >> >>" % following
        forms.append(stream(b"/Fm Do /Fm Do", b"/Type /XObject /Subtype /Form " + inner))
    text = b"BT /F1 12 Tf (again and again) Tj ET"
    last = stream(text, b"/Type /XObject /Subtype /Form /Resources << /Font << /F1 3 0 R >> >>")
    leaf = b"<< /Type /Page /Parent 2 0 R /Resources << /XObject << /Fm %d 0 R >> >> /Contents 5 0 R >>" % first
    pages = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
    return pdf_of([CATALOG, pages, HELVETICA, leaf, stream(b"/Fm Do"), *forms, last])


def slow_pdf(operators: int = 3_000_000) -> bytes:
    """A page of millions of text operators, a few kilobytes when packed."""
    packed = zlib.compress(b"BT /F1 12 Tf " + b"(a) Tj " * operators + b"ET", 9)
    pages = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
    return pdf_of([CATALOG, pages, HELVETICA, page(5), stream(packed, b"/Filter /FlateDecode")])


def inflating_pdf(mib: int = 1000) -> bytes:
    """A page whose content is one long string that unpacks to `mib` MiB, packed twice over."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"BT /F1 12 Tf (")]
    parts += [packer.compress(b"a" * (1 << 20)) for _ in range(mib)]
    packed = b"".join([*parts, packer.compress(b") Tj ET"), packer.flush()])
    pages = b"<< /Type /Pages /Kids [4 0 R] /Count 1 >>"
    twice = stream(zlib.compress(packed, 9), b"/Filter [/FlateDecode /FlateDecode]")
    return pdf_of([CATALOG, pages, HELVETICA, page(5), twice])


def many_pages_pdf(count: int) -> bytes:
    """`count` times the same page."""
    pages = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b"4 0 R " * count, count)
    return pdf_of([CATALOG, pages, HELVETICA, page(5), stream(b"BT /F1 12 Tf (page) Tj ET")])


def word(*paragraphs: str, title: str = "", table: Sequence[Sequence[str]] = ()) -> bytes:
    """A .docx with a table behind the first paragraph."""
    document = docx.Document()
    document.core_properties.title = title
    for number, text in enumerate(paragraphs):
        document.add_paragraph(text)
        if table and not number:
            grid = document.add_table(rows=len(table), cols=len(table[0]))
            for row, cells in zip(grid.rows, table, strict=True):
                for cell, value in zip(row.cells, cells, strict=True):
                    cell.text = value
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def with_part(archive: bytes, name: str, data: bytes) -> bytes:
    """The same .docx with another content of part `name`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for part in old.infolist():
            new.writestr(part, data if part.filename == name else old.read(part))
        if name not in old.namelist():
            new.writestr(name, data)
    return out.getvalue()


def entities(levels: int = 9) -> bytes:
    """A document part with the billion laughs."""
    declared = ['<!ENTITY a0 "ha">']
    declared += [f'<!ENTITY a{level} "{f"&a{level - 1};" * 10}">' for level in range(1, levels + 1)]
    namespace = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return (
        f'<?xml version="1.0"?><!DOCTYPE w [{"".join(declared)}]><w:document xmlns:w="{namespace}"><w:body><w:p><w:r>'
        f"<w:t>&a{levels};</w:t></w:r></w:p></w:body></w:document>"
    ).encode()


def lying_word() -> bytes:
    """A zip bomb that declares a small size for its document part."""
    bomb = with_part(word("x"), "word/document.xml", b"<a>" + b" " * (64 << 20) + b"</a>")
    real, small = struct.pack("<I", (64 << 20) + 7), struct.pack("<I", 1000)
    assert bomb.count(real) == 2  # in the local header and in the directory
    return bomb.replace(real, small)
