"""The forms of texts that ``format`` of JSON Schema names, as regular expressions.

RFC 3339 section 5.6, but for leap seconds, and appendix A (durations); RFC 4122 section 3; RFC
5322's dot-atoms in front of a name of two to five labels; RFC 4291 section 2.2 without a
zone; RFC 3986 without a user and without a literal address; RFC 1123 section 2.1 (host names) with
single hyphens in at most five short labels; RFC 6570 (templates); RFC 6901 (pointers); RFC 4648
sections 4 and 5 (base64). Of those for other scripts (idn-email, iri, ...) only what ASCII has.
Each ends: a small model would go on.
"""

MAX_FORM_LENGTH = 2_000  # characters; no text of any form has more

_LEAP = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
_DATE = (
    "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP}-02-29)"
)
_TIME = (
    r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?"
    "(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)
_N = "[0-9]{1,9}"
_DURATION_TIME = f"T(?:{_N}H(?:{_N}M(?:{_N}S)?)?|{_N}M(?:{_N}S)?|{_N}S)"
_DURATION_DATE = f"(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)"
_LABEL = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_H16 = "[0-9A-Fa-f]{1,4}"
_LS32 = f"(?:{_H16}:{_H16}|{_IPV4})"
_IPV6 = "|".join((
    f"(?:{_H16}:){{6}}{_LS32}",
    f"::(?:{_H16}:){{5}}{_LS32}",
    *(
        f"(?:(?:{_H16}:){{0,{n}}}{_H16})?::(?:{_H16}:){{{4 - n}}}{_LS32}"
        for n in range(5)
    ),
    f"(?:(?:{_H16}:){{0,5}}{_H16})?::{_H16}",
    f"(?:(?:{_H16}:){{0,6}}{_H16})?::",
))  # fmt: skip
_SEGMENT = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_PATH = _SEGMENT.replace(",;", ",;/")
_HOST = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})"
_QUERY = _HOST.replace(",;", ",;:@/?")
_URI = (
    f"[A-Za-z][A-Za-z0-9+.-]{{0,15}}:(?://{_HOST}{{0,80}}(?::[0-9]{{0,5}})?(?:/{_PATH}{{0,240}})?"
    f"|/?(?:{_SEGMENT}{_PATH}{{0,240}})?)(?:\\?{_QUERY}{{0,240}})?(?:#{_QUERY}{{0,40}})?"
)
_FIRST_SEGMENT = _HOST.replace(",;", ",;@")  # of a relative path: without a colon
_REFERENCE = (
    f"(?:{_URI}|(?://{_HOST}{{0,80}}(?::[0-9]{{0,5}})?(?:/{_PATH}{{0,240}})?"
    f"|/(?:{_SEGMENT}{_PATH}{{0,240}})?|{_FIRST_SEGMENT}{{1,80}}(?:/{_PATH}{{0,240}})?)?"
    f"(?:\\?{_QUERY}{{0,240}})?(?:#{_QUERY}{{0,40}})?)"
)
_VARIABLE = r"[A-Za-z0-9_]{1,20}(?:\.[A-Za-z0-9_]{1,20}){0,2}(?::[1-9][0-9]{0,3}|\*)?"
_TEMPLATE = (
    r"(?:[A-Za-z0-9._~!$&()*+,;=:@/?#-]|%[0-9A-Fa-f]{2}"
    rf"|\{{[+#./;?&]?{_VARIABLE}(?:,{_VARIABLE}){{0,2}}\}}){{0,80}}"
)
_LABEL_OF_HOST = "[A-Za-z0-9](?:-?[A-Za-z0-9]){0,23}"
_HOST_NAME = rf"{_LABEL_OF_HOST}(?:\.{_LABEL_OF_HOST}){{0,4}}"
_POINTER = "(?:/(?:[^~/]|~[01]){0,80}){0,12}"
_BASE64 = "(?:{0}{{4}}){{0,256}}(?:{0}{{2}}==|{0}{{3}}=)?"
_EMAIL = rf"{_ATOM}(?:\.{_ATOM}){{0,2}}@{_LABEL}(?:\.{_LABEL}){{1,4}}"
_HEX = "[0-9a-fA-F]"
FORM_PATTERNS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}[Tt]{_TIME}",
    "duration": f"P(?:{_DURATION_DATE}(?:{_DURATION_TIME})?|{_DURATION_TIME}|{_N}W)",
    "email": _EMAIL,
    "idn-email": _EMAIL,
    "hostname": _HOST_NAME,
    "idn-hostname": _HOST_NAME,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "ipvanyaddress": f"{_IPV4}|{_IPV6}",  # Pydantic's
    "uri": _URI,
    "iri": _URI,
    "uri-reference": _REFERENCE,
    "iri-reference": _REFERENCE,
    "uri-template": _TEMPLATE,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"(?:0|[1-9][0-9]{{0,3}})(?:#|{_POINTER})",
    "byte": _BASE64.format("[A-Za-z0-9+/]"),  # OpenAPI's
    "base64": _BASE64.format("[A-Za-z0-9+/]"),
    "base64url": "[A-Za-z0-9_-]{0,1024}={0,2}",
    "uuid": f"{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    **{  # Pydantic's
        f"uuid{n}": f"{_HEX}{{8}}-{_HEX}{{4}}-{n}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
        for n in (1, 3, 4, 5)
    },
}
