"""Holder keys (P-12): one encoding each, none that is weak."""

from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

# Edwards25519 (RFC 8032, section 5.1).
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_ONE = pow(2, (_P - 1) // 4, _P)
_ORDER = 2**252 + 27742317777372353535851937790883648493

Point = tuple[int, int]


@dataclass(frozen=True)
class Key:
    """A public key: `alg` is `ed25519` (32 bytes) or `secp256r1` (33, compressed)."""

    alg: str
    data: bytes

    def is_sound(self) -> bool:
        """P-12: of the right length, canonical, on the curve, not of small order."""
        if self.alg == "ed25519":
            return _is_strong_ed25519(self.data)
        if self.alg == "secp256r1":
            return _p256(self.data) is not None
        return False

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """R-11: a JWS signature of this key (RFC 8037, RFC 7518), strictly."""
        if len(signature) != 64:
            return False
        try:
            if self.alg == "ed25519":
                # A commitment of small order is what makes one signature fit many messages.
                if not _is_strong_ed25519(signature[:32]) or int.from_bytes(signature[32:], "little") >= _ORDER:
                    return False
                Ed25519PublicKey.from_public_bytes(self.data).verify(signature, message)
            else:
                key = _p256(self.data)
                assert key is not None
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def compressed_p256(x: bytes, y: bytes) -> Key | None:
    """The key of the coordinates of a JWK, or None when they are no point of the curve."""
    try:
        numbers = ec.EllipticCurvePublicNumbers(int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1())
        numbers.public_key()
    except ValueError:
        return None
    return Key("secp256r1", bytes([2 + (y[-1] & 1)]) + x)


def _p256(data: bytes) -> ec.EllipticCurvePublicKey | None:
    if len(data) != 33 or data[0] not in (2, 3):
        return None
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), data)
    except ValueError:
        return None


def _is_strong_ed25519(data: bytes) -> bool:
    point = _decompress(data) if len(data) == 32 else None
    if point is None:
        return False
    for _ in range(3):
        point = _add(point, point)
    return point != (0, 1)


def _decompress(data: bytes) -> Point | None:
    """RFC 8032, section 5.1.3; y below p and no negative zero, so that each point has one encoding."""
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if x * x % _P != square:
        x = x * _SQRT_MINUS_ONE % _P
    if x * x % _P != square or (x == 0 and sign == 1):
        return None
    return (_P - x if x & 1 != sign else x), y


def _add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    product = _D * x1 * x2 * y1 * y2 % _P
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, _P) % _P
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, _P) % _P
    return x, y
