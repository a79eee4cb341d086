"""One instance on several machines, with PostgreSQL, Redis and an object store between them and no folder."""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.utils import timezone

from classifier import pipeline
from classifier.models import CellImage
from tests.faults.client import Client
from tests.faults.conftest import QUICK, drop_database, new_database
from tests.faults.hosts import Forwarder, Host, Network
from tests.faults.instance import Instance, pictures, wait_until
from tests.object_store import ObjectStore
from tests.servers import RunningServer

SEEN = "SELECT host, pid FROM classifier_workerheartbeat WHERE seen_at > now() - interval '15 seconds'"


@dataclass
class Site:
    """A laboratory's machines: web on the first, workers on the second and third, beat on the fourth."""

    database: Instance
    network: Network
    store: ObjectStore
    hosts: list[Host]
    forwarders: list[Forwarder] = field(default_factory=list)

    @property
    def web(self) -> Host:
        return self.hosts[0]

    @property
    def workers(self) -> list[Host]:
        return self.hosts[1:3]

    def start(self) -> Client:
        for host, kind in zip(self.hosts, ("web", "worker", "worker", "beat"), strict=True):
            host.start(kind, self.hosts)
        way_in = Forwarder("127.0.0.1", (self.web.address, self.web.port))
        self.forwarders.append(way_in)
        token = self.database.manage("create_token", "technologist@demo.example").splitlines()[-1]
        client = Client(way_in.address[1], token)
        wait_until(lambda: not client.unready(), 90, "the instance is ready")
        wait_until(lambda: len(self.database.rows(SEEN)) == 2, 60, "both workers are seen")
        return client

    def shares(self) -> Counter[str]:
        """How many images each worker has begun, by what its own log says."""
        counted: Counter[str] = Counter()
        for host in self.workers:
            log = host.var / "worker-output.log"
            for line in log.read_text(errors="replace").splitlines():
                if "images_classified" in line:
                    counted[host.name] += 1
        return counted


@pytest.fixture
def site(
    tmp_path: Path, server_url: str, prepared: Instance, redis: RunningServer, object_store: ObjectStore
) -> Iterator[Site]:
    url = new_database(server_url, prepared.database_url.rsplit("/", 1)[-1])
    place, name = url.removeprefix("postgres://postgres@/").rsplit("/", 1)
    network = Network()
    postgresql = Forwarder(network.address, f"{place}/.s.PGSQL.5432")
    broker = Forwarder(network.address, urlsplit(redis.url).path)
    pictures_go_to = Forwarder(network.address, ("127.0.0.1", object_store.port))
    at = {each: f"{each.address[0]}:{each.address[1]}" for each in (postgresql, broker, pictures_go_to)}
    variables = {
        **QUICK,
        **object_store.variables,
        "S3_PREFIX": tmp_path.name,
        "S3_ENDPOINT_URL": f"http://{at[pictures_go_to]}",
        "DATABASE_URL": f"postgres://postgres@{at[postgresql]}/{name}",
        "REDIS_URL": f"redis://{at[broker]}/0",
    }
    # What a person at the database sees, on a machine of its own as well.
    database = prepared.copy_to(tmp_path / "looking on", url, **{**variables, "DATABASE_URL": url})
    hosts = []
    for number in range(4):
        folder = tmp_path / f"machine-{number}"
        shutil.copytree(prepared.var, folder / "var")
        environment = {name: database.environment[name] for name in ("PATH", "LANG")}
        hosts.append(Host(network, number, folder, {**environment, **variables}))
    made = Site(database, network, object_store, hosts, [postgresql, broker, pictures_go_to])
    yield made
    for host in hosts:
        host.cut_power()
    for forwarder in made.forwarders:
        forwarder.close()
    network.close()
    drop_database(server_url, url)


def all_classified_once(site: Site, count: int, seconds: float = 120) -> None:
    wait_until(lambda: site.database.statuses() == {"classified": count}, seconds, "every image is classified")
    assert site.database.predictions() == (count, count)


@pytest.mark.django_db(transaction=True)
def test_machine_that_vanishes_within_a_transaction_gives_its_rows_back(make_image: Callable[..., CellImage]) -> None:
    """The server ends its session without a word from the machine; a sweep that waits for a row then goes on."""
    image = make_image("claimed", claim_expires_at=timezone.now() - timedelta(minutes=5))
    with connection.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("1min",)
    settings = connection.get_connection_params()
    settings["options"] = settings["options"].replace("=60s", "=500ms")
    vanished = connection.get_new_connection(settings)
    vanished.autocommit = False
    vanished.execute("SELECT id FROM classifier_cellimage FOR UPDATE")

    began = time.monotonic()
    assert pipeline.sweep_expired_claims() == 1
    assert 0.2 < time.monotonic() - began < 30
    image.refresh_from_db()
    assert image.status == "queued"


def stored(site: Site, kind: str) -> int:
    prefix = f"{site.web.environment['S3_PREFIX']}/{kind}/"
    return sum(name.startswith(prefix) for name in site.store.names())


def assert_nothing_is_shared(site: Site, count: int) -> None:
    """The pictures are in the bucket, each with its thumbnail, and on no machine's disk."""
    wait_until(lambda: stored(site, "thumbnails") == count, 30, "every picture has its thumbnail")
    assert stored(site, "originals") == count
    assert [host.files() for host in site.hosts] == [[], [], [], []]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_machine_that_dies_in_the_middle_loses_nothing_and_the_other_does_its_share(site: Site) -> None:
    client = site.start()
    case, cells = client.open_case(), pictures(120)
    for picture in cells[:60]:
        client.upload(case, picture)
    wait_until(lambda: len(site.shares()) == 2, 60, "both have done some")
    for picture in cells[60:]:
        client.upload(case, picture)
    doomed = site.workers[0]
    wait_until(lambda: site.database.statuses().get("claimed"), 30, "images are claimed")
    doomed.cut_power()

    all_classified_once(site, len(cells))
    assert_nothing_is_shared(site, len(cells))
    [(connections,)] = site.database.rows("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
    print(
        f"Separate machines: {site.network.separate}. Micro-batches: {dict(site.shares())}. {connections} connections."
    )
    wait_until(lambda: len(site.database.rows(SEEN)) == 1, 60, "only one worker is seen")
    assert client.unready() == {}


@pytest.mark.long
@pytest.mark.timeout(900)
def test_machine_whose_cable_is_pulled_changes_nothing_late_and_works_again_afterwards(site: Site) -> None:
    """Where no machine can be cut off, because nothing here may build a network, its processes are stopped instead."""
    client = site.start()
    case, cells = client.open_case(), pictures(150)
    for picture in cells[:50]:
        client.upload(case, picture)
    lost = site.workers[0]
    before = site.shares()[lost.name]
    wait_until(lambda: site.shares()[lost.name] > before, 60, "it has work")
    site.network.cable(lost.number, "down")
    for picture in cells[50:100]:
        client.upload(case, picture)
    all_classified_once(site, 100)

    site.network.cable(lost.number, "up")
    wait_until(lambda: len(site.database.rows(SEEN)) == 2, 120, "it is seen again")
    before = site.shares()[lost.name]
    for picture in cells[100:]:
        client.upload(case, picture)
    all_classified_once(site, len(cells))
    wait_until(lambda: site.shares()[lost.name] > before, 60, "it works again")
    assert_nothing_is_shared(site, len(cells))
