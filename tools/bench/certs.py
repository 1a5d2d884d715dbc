"""Group `certs`: what a SCEP request costs its client, what answering one costs the server, and attested ACME on both sides.

The server is `mdm-certs serve` with its defaults in a process of its own, but for `pkioperation`: that is one message after the
other in this process, without HTTP. Each figure is measured several times; the calmest counts.
"""

from typing import Final

from tools.bench.certs_acme import acme
from tools.bench.certs_scep import pkcs_req, pki_operation
from tools.bench.figure import Measurement

MEASUREMENTS: Final = (
    Measurement(name="pkcsreq", what="client: key to PKCSReq", measure=pkcs_req),
    Measurement(name="pkioperation", what="server: PKCSReq to CertRep", measure=pki_operation),
    Measurement(name="acme", what="attested ACME, both sides with TLS", measure=acme),
)
