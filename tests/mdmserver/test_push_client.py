"""The server's HTTP/2 to APNs: one connection, its limits, its failures, and whom it trusts."""

import asyncio

import pytest

from certs.errors import TransportError
from mdmserver import push_client
from mdmserver.push_client import PushClient
from tests.emulator.apple.push_support import TOKEN, TOPIC, faulty, push_identity, push_services
from tests.emulator.apple.support import pki

MAGIC = "7B0E5E3C-2C1D-4E57-9C0F-0B8F6B2B0E4D"


@pytest.fixture(autouse=True, scope="module")
def _warm() -> None:
    pki()


async def test_two_hundred_pushes_share_one_connection() -> None:
    async with push_services() as services:
        tokens = [number.to_bytes(32) for number in range(1, 201)]
        for token in tokens:
            services.push.tokens.register(token, TOPIC)
        client = PushClient(
            services.push_url, push_identity(TOPIC), roots=[services.pki.tls_ca.certificate]
        )
        answers = await asyncio.gather(*(client.send(token, TOPIC, MAGIC) for token in tokens))
        assert {answer.status for answer in answers} == {200}
        assert client.connections == 1
        await client.close()


async def test_the_client_keeps_to_the_limit_of_streams() -> None:
    fault = faulty("settings", "push_connection", max_concurrent_streams=1)
    async with push_services(faults=fault) as services:
        services.push.tokens.register(TOKEN, TOPIC)
        client = PushClient(
            services.push_url, push_identity(TOPIC), roots=[services.pki.tls_ca.certificate]
        )
        await client.send(TOKEN, TOPIC, MAGIC)
        answers = await asyncio.gather(*(client.send(TOKEN, TOPIC, MAGIC) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        await client.close()


async def test_the_client_says_who_could_not_be_trusted() -> None:
    async with push_services() as services:
        client = PushClient(
            services.push_url, push_identity(TOPIC), roots=[pki().push_ca.certificate]
        )
        with pytest.raises(TransportError, match="certificate verify failed"):
            await client.send(TOKEN, TOPIC, MAGIC)
        await client.close()


async def test_no_push_ever_leaves_for_apple() -> None:
    client = PushClient("https://api.push.apple.com", push_identity(TOPIC), roots=[])
    with pytest.raises(Exception, match="real Apple host"):
        await client.send(TOKEN, TOPIC, MAGIC)
    await client.close()


async def test_who_waits_for_the_same_connection_shares_its_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service that accepts and says nothing costs one time-out, not one for each push."""
    monkeypatch.setattr(push_client, "CONNECT_TIMEOUT_S", 0.1)
    attempts: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        attempts.append(writer)

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = PushClient(
        f"https://localhost:{port}", push_identity(TOPIC), roots=[pki().tls_ca.certificate]
    )
    sent = (client.send(bytes([number]) * 32, TOPIC, MAGIC) for number in range(50))
    failures = await asyncio.gather(*sent, return_exceptions=True)
    assert {str(failure) for failure in failures} == {str(failures[0])}
    assert isinstance(failures[0], TransportError)
    assert "no connection in time" in str(failures[0])
    assert len(attempts) == 1
    with pytest.raises(TransportError):
        await client.send(TOKEN, TOPIC, MAGIC)
    assert len(attempts) == 2
    await client.close()
    for writer in attempts:
        writer.close()
    server.close()


async def test_closing_ends_a_connection_that_is_still_being_made() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = PushClient(
        f"https://localhost:{port}", push_identity(TOPIC), roots=[pki().tls_ca.certificate]
    )
    push = asyncio.create_task(client.send(TOKEN, TOPIC, MAGIC))
    await asyncio.sleep(0)
    assert client._opening is not None
    push.cancel()
    await client.close()
    assert client.connections == 0
    assert client._opening is None
    server.close()
