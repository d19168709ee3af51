"""Monitoring made for php-fpm, as it comes, against a pool behind nginx."""

from __future__ import annotations

import builtins
import importlib
import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from .pools import Spawner, base_environment
from .processes import Program, Supervisor, wait_until
from .visits import APP, busy_visit, get
from .webservers import WebServers

# As php-fpm's manual has it.
LOCATION = """
location = /status {{
    include /etc/nginx/fastcgi_params;
    fastcgi_pass unix:{socket};
}}
"""
COLLECTD = """
Hostname "here"
BaseDir "{directory}"
PIDFile "{directory}/collectd.pid"
TypesDB "/usr/share/collectd/types.db"
Interval 0.2
LoadPlugin curl_json
LoadPlugin curl_xml
LoadPlugin csv
<Plugin csv>
  DataDir "stdout"
</Plugin>
<Plugin curl_json>
  <URL "{url}?json&full">
    Instance "json"
    <Key "accepted conn">
      Type "total_requests"
    </Key>
    <Key "listen queue len">
      Type "gauge"
    </Key>
    <Key "active processes">
      Type "gauge"
    </Key>
    <Key "processes/*/requests">
      Type "total_requests"
    </Key>
  </URL>
</Plugin>
<Plugin curl_xml>
  <URL "{url}?xml">
    Instance "xml"
    <XPath "/status">
      Type "gauge"
      ValuesFrom "total-processes"
    </XPath>
  </URL>
</Plugin>
"""


def test_collectd_reads_json_and_xml(
    spawn: Spawner, webservers: WebServers, supervisor: Supervisor, tmp_path: Path
) -> None:
    pool = spawn("-n", 2, *APP, "--status-path", "/status")
    server = webservers.nginx(LOCATION.format(socket=pool.socket))
    for _ in range(5):
        get(pool, "/echo")
    config = tmp_path / "collectd.conf"
    config.write_text(COLLECTD.format(directory=tmp_path, url=server.url + "/status"))
    command = ["collectd", "-f", "-C", str(config)]
    collectd = Program(command, supervisor.log_path("collectd"), env=base_environment(tmp_path))
    supervisor.add(collectd)

    def value(name: str) -> float:
        found = re.findall(rf'PUTVAL "?here/{name}"? .*:([0-9.]+)', collectd.log)
        return float(found[-1]) if found else -1

    wait_until(lambda: value("curl_json-json/total_requests-accepted conn") > 5, what="accepted conn")
    wait_until(lambda: value("curl_json-json/gauge-listen queue len") > 0, what="listen queue len")
    wait_until(lambda: value("curl_xml-xml/gauge") == 2, what="total-processes")
    assert value("curl_json-json/total_requests-processes-0-requests") > 0
    with_one_more = busy_visit(pool, "/sleep?seconds=3")
    # The other worker answers the status.
    wait_until(lambda: value("curl_json-json/gauge-active processes") == 2, what="active processes")
    assert with_one_more.status() == 200


def test_new_relics_plugin_reads_json(
    spawn: Spawner, webservers: WebServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a number that comes as text for 0."""
    # Two names of Python 2's time; what it does with a status is as it comes.
    monkeypatch.setitem(sys.modules, "urlparse", urllib.parse)
    monkeypatch.setattr(builtins, "basestring", str, raising=False)
    php_fpm = importlib.import_module("newrelic_plugin_agent.plugins.php_fpm")
    pool = spawn("-n", 2, *APP, "--status-path", "/status")
    server = webservers.nginx(LOCATION.format(socket=pool.socket))
    address = urllib.parse.urlsplit(server.url)
    where = {"host": address.hostname, "port": address.port, "path": "/status", "query": "json"}
    plugin = php_fpm.FPM({"name": "trac", **where}, 60)
    plugin.poll()
    for _ in range(5):
        get(pool, "/echo")
    plugin.poll()
    metrics = plugin.values()["metrics"]
    found = {name.partition("[")[0].removeprefix("Component/"): figures for name, figures in metrics.items()}
    assert found["Connections/Accepted"]["total"] == 6  # one is the plugin's own
    assert found["Processes/Active"]["total"] == 1
    assert found["Processes/Idle"]["total"] == 1
    assert found["Socket Queue"]["total"] > 0
    assert found["Process Limit Reached"]["total"] == found["Slow Requests"]["total"] == 0


def test_prometheus_reads_openmetrics(spawn: Spawner, webservers: WebServers) -> None:
    pool = spawn("-n", 2, *APP, "--status-path", "/status")
    server = webservers.nginx(LOCATION.format(socket=pool.socket))
    with urllib.request.urlopen(server.url + "/status?openmetrics") as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        families = {one.name: one for one in text_string_to_metric_families(answer.read().decode())}
    values = {name: family.samples[0].value for name, family in families.items()}
    assert values["phpfpm_up"] == 1 and values["phpfpm_total_processes"] == 2
    assert families["phpfpm_active_processes"].type == "gauge"
    assert families["phpfpm_accepted_connections"].type == "counter"


def test_what_telegraf_reads(spawn: Spawner, webservers: WebServers) -> None:
    """Its phpfpm input: each line of the text split at the colon, a pool's name first, then integers."""
    pool = spawn("-n", 2, *APP, "--status-path", "/status")
    server = webservers.nginx(LOCATION.format(socket=pool.socket))
    with urllib.request.urlopen(server.url + "/status") as answer:
        pairs = [line.split(":", 1) for line in answer.read().decode().splitlines()]
    told = {name.strip(): value.strip() for name, value in pairs}
    assert told["pool"] == "trac"
    for name in (
        "start since", "accepted conn", "listen queue", "max listen queue", "listen queue len",
        "idle processes", "active processes", "total processes", "max active processes",
        "max children reached", "slow requests",
    ):  # fmt: skip
        int(told[name])
    with urllib.request.urlopen(server.url + "/status?json") as answer:
        assert json.load(answer)["pool"] == "trac"
