"""Other people's evaluators. Each loads its definitions from memory or a file and asks nobody.

A peer has a `statement` that asks once, for a `context` that was made beforehand, as its own documentation shows it; events,
metrics and logs that it would send are switched off where it lets one.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from load.peers.flags import FLAGS, SHARE, Rule

logging.getLogger("UnleashClient").setLevel(logging.CRITICAL)
OFFLINE = "http://127.0.0.1:1"


class LaunchDarkly:
    """launchdarkly-server-sdk, from its file data source."""

    name = "LaunchDarkly"
    statement = "client.variation(key, context, False)"

    def __init__(self, folder: Path) -> None:
        from ldclient import Context, LDClient
        from ldclient.config import Config
        from ldclient.integrations import Files

        path = folder / "launchdarkly.json"
        path.write_text(json.dumps({"flags": {key: self._flag(key, rules) for key, rules in FLAGS.items()}}))
        source = Files.new_data_source(paths=[str(path)])
        self.client = LDClient(Config("sdk-key", update_processor_class=source, send_events=False), start_wait=5)
        self._builder = Context.builder

    def _flag(self, key: str, rules: list[Rule]) -> dict[str, Any]:
        fallthrough = {"variation": 0 if not rules else 1}
        return {
            "key": key, "on": True, "version": 1, "variations": [True, False], "offVariation": 1, "salt": key,
            "fallthrough": fallthrough, "targets": [], "prerequisites": [],
            "rules": [{**self._rule(rule), "id": f"{index}"} for index, rule in enumerate(rules)],
        }  # fmt: skip

    def _rule(self, rule: Rule) -> dict[str, Any]:
        weights = [{"variation": 0, "weight": SHARE * 1000}, {"variation": 1, "weight": (100 - SHARE) * 1000}]
        clauses = [
            {"attribute": "country", "op": "in", "values": list(rule.countries), "negate": False},
            {"attribute": "plan", "op": "in", "values": [rule.plan], "negate": False},
        ]
        return {"clauses": clauses, "rollout": {"variations": weights}}

    def context(self, user: dict[str, Any]) -> Any:
        """Its context object."""
        builder = self._builder(user["key"])
        for name in ("country", "plan", "email"):
            builder.set(name, user[name])
        return builder.build()

    def close(self) -> None:
        """Stop its threads."""
        self.client.close()


class GrowthBook:
    """growthbook: an instance per user, which is its context."""

    name = "GrowthBook"
    statement = "context.is_on(key)"

    def __init__(self, folder: Path) -> None:
        from growthbook import GrowthBook as Instance

        del folder
        self.client = None
        self._instance = Instance
        self._features = {key: self._feature(rules) for key, rules in FLAGS.items()}

    def _feature(self, rules: list[Rule]) -> dict[str, Any]:
        forced = [
            {
                "condition": {"country": {"$in": list(rule.countries)}, "plan": rule.plan},
                "force": True,
                "coverage": SHARE / 100,
                "hashAttribute": "id",
            }
            for rule in rules
        ]
        return {"defaultValue": not rules, "rules": forced}

    def context(self, user: dict[str, Any]) -> Any:
        """An instance with the user's attributes."""
        attributes = {"id": user["key"], "country": user["country"], "plan": user["plan"], "email": user["email"]}
        return self._instance(attributes=attributes, features=self._features)

    def close(self) -> None:
        """Nothing runs."""


class Flagsmith:
    """flagsmith in offline mode: it evaluates an environment of one flag, and the flag is taken from the result."""

    name = "Flagsmith"
    statement = "client[key].get_identity_flags(context[0], context[1]).is_feature_enabled(key)"

    def __init__(self, folder: Path) -> None:
        from flagsmith import Flagsmith as Client
        from flagsmith.offline_handlers import LocalFileHandler

        self.client = {}
        for key, rules in FLAGS.items():
            path = folder / f"flagsmith-{key}.json"
            path.write_text(json.dumps(self._environment(key, rules)))
            self.client[key] = Client(offline_mode=True, offline_handler=LocalFileHandler(str(path)))

    def _environment(self, key: str, rules: list[Rule]) -> dict[str, Any]:
        segments = [self._segment(key, index, rule) for index, rule in enumerate(rules)]
        return {
            "api_key": "key", "name": "load", "updated_at": "2026-01-01T00:00:00+00:00", "identity_overrides": [],
            "feature_states": [self._state(key, not rules)], "project": {"id": 1, "name": "load", "segments": segments},
        }  # fmt: skip

    def _segment(self, key: str, index: int, rule: Rule) -> dict[str, Any]:
        conditions = [
            {"operator": "IN", "property_": "country", "value": ",".join(rule.countries)},
            {"operator": "EQUAL", "property_": "plan", "value": rule.plan},
            {"operator": "PERCENTAGE_SPLIT", "property_": "$.identity.identifier", "value": str(SHARE)},
        ]
        inner = [{"type": "ALL", "conditions": [condition], "rules": []} for condition in conditions]
        state = {**self._state(key, True), "feature_segment": {"priority": index}}
        rules = [{"type": "ALL", "conditions": [], "rules": inner}]
        return {"id": index + 1, "name": f"segment-{index}", "rules": rules, "feature_states": [state]}

    def _state(self, key: str, enabled: bool) -> dict[str, Any]:
        return {
            "enabled": enabled, "feature": {"id": 1, "name": key, "type": "STANDARD"}, "feature_segment": None,
            "feature_state_value": None, "featurestate_uuid": f"{key}-{enabled}", "multivariate_feature_state_values": [],
        }  # fmt: skip

    def context(self, user: dict[str, Any]) -> Any:
        """Identifier and traits."""
        return user["key"], {"country": user["country"], "plan": user["plan"], "email": user["email"]}

    def close(self) -> None:
        """Nothing runs."""


class Statsig:
    """statsig-python-core, its specs from a data store of our own."""

    name = "Statsig core"
    statement = "client.check_gate(context, key)"

    def __init__(self, folder: Path) -> None:
        from statsig_python_core import DataStore, DataStoreResponse, StatsigOptions, StatsigUser
        from statsig_python_core import Statsig as Client

        specs = json.dumps(self._specs())

        class Store(DataStore):  # type: ignore[misc]
            def get(self, key: str) -> Any:
                return DataStoreResponse(specs, 1)

        del folder
        options = StatsigOptions()
        options.data_store = Store()
        options.disable_network = True
        options.disable_all_logging = True
        options.output_log_level = "none"
        self._user = StatsigUser
        self.client = Client("secret-key", options)
        self.client.initialize().wait()

    def _specs(self) -> dict[str, Any]:
        conditions: dict[str, Any] = {}
        gates = {}
        for key, rules in FLAGS.items():
            made = [self._rule(f"{key}-{index}", rule, conditions) for index, rule in enumerate(rules)]
            gates[key] = {
                "type": "feature_gate", "salt": key, "enabled": True, "defaultValue": False, "idType": "userID",
                "entity": "feature_gate", "rules": made or [self._rule(f"{key}-all", None, conditions)], "version": 1,
            }  # fmt: skip
        return {
            "feature_gates": gates, "dynamic_configs": {}, "layer_configs": {}, "condition_map": conditions, "time": 1,
            "has_updates": True, "experiment_to_layer": {}, "response_format": "dcs-v2",
        }  # fmt: skip

    def _rule(self, name: str, rule: Rule | None, conditions: dict[str, Any]) -> dict[str, Any]:
        fields = {"isDeviceBased": False, "idType": "userID", "additionalValues": {}}
        if rule is None:
            conditions["public"] = {"type": "public", "targetValue": None, "operator": None, "field": None, **fields}
            names, share = ["public"], 100
        else:
            share, names = SHARE, [f"{name}-country", f"{name}-plan"]
            wanted = (list(rule.countries), [rule.plan])
            for one, field, values in zip(names, ("country", "plan"), wanted, strict=True):
                conditions[one] = {"type": "user_field", "targetValue": values, "operator": "any", "field": field, **fields}
        return {
            "name": name, "id": name, "salt": name, "passPercentage": share, "conditions": names, "returnValue": True,
            "idType": "userID", "isDeviceBased": False, "groupName": name,
        }  # fmt: skip

    def context(self, user: dict[str, Any]) -> Any:
        """Its user object."""
        return self._user(user_id=user["key"], email=user["email"], country=user["country"], custom={"plan": user["plan"]})

    def close(self) -> None:
        """Stop its threads."""
        self.client.shutdown().wait()


class Unleash:
    """unleashclient, bootstrapped from memory and never initialized over the network."""

    name = "Unleash"
    statement = "client.is_enabled(key, context)"

    def __init__(self, folder: Path) -> None:
        from UnleashClient import UnleashClient
        from UnleashClient.cache import FileCache

        cache = FileCache("load", directory=str(folder))
        cache.bootstrap_from_dict({"version": 2, "features": [self._feature(*one) for one in FLAGS.items()]})
        self.client = UnleashClient(OFFLINE, "load", cache=cache, disable_metrics=True, disable_registration=True)
        self.client.initialize_client(fetch_toggles=False)

    def _feature(self, key: str, rules: list[Rule]) -> dict[str, Any]:
        strategies = [self._strategy(rule) for rule in rules] or [{"name": "default", "parameters": {}}]
        return {"name": key, "type": "release", "enabled": True, "strategies": strategies, "variants": []}

    def _strategy(self, rule: Rule) -> dict[str, Any]:
        constraints = [
            {"contextName": "country", "operator": "IN", "values": list(rule.countries)},
            {"contextName": "plan", "operator": "IN", "values": [rule.plan]},
        ]
        parameters = {"rollout": str(SHARE), "stickiness": "userId", "groupId": "load"}
        return {"name": "flexibleRollout", "constraints": constraints, "parameters": parameters}

    def context(self, user: dict[str, Any]) -> Any:
        """Its context, a dict."""
        properties = {"country": user["country"], "plan": user["plan"], "email": user["email"]}
        return {"userId": user["key"], "properties": properties}

    def close(self) -> None:
        """Stop its threads."""
        self.client.destroy()


PEERS = (LaunchDarkly, GrowthBook, Flagsmith, Statsig, Unleash)
