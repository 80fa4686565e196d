"""Find the workloads whose pod template changes only because of this release.

It renders the same spec in another way. A change that the owner declares is applied at once. A change that comes with a
release is staged: until its turn, a workload keeps the revision that is saved in a ConfigMap, or the observed one where
a release before did not save it.
"""

import copy
from collections.abc import Mapping
from typing import Any

from pocket_operator.decide.drift import is_subset
from pocket_operator.decide.snapshot import ChildKey
from pocket_operator.decide.workloads import annotation_of, image_of
from pocket_operator.resources import names
from pocket_operator.resources.context import Context
from pocket_operator.resources.rendering import declared_revisions
from pocket_operator.resources.revision import KeptRevision, Revision

Object = dict[str, Any]


def kept_revisions(context: Context, children: Mapping[ChildKey, Object]) -> dict[str, KeptRevision]:
    """Return the revisions of another release that differ, by component.

    They differ from what `context` declares.

    `context` has the images that the workloads have now. Raises PodTemplateRejected.
    """
    workloads = {
        names.RELAYER: children.get(("Deployment", names.relayer(context.name))),
        names.MINER: children.get(("StatefulSet", names.miner(context.name))),
        names.REDIS: children.get(("StatefulSet", names.redis(context.name))),
    }
    revisions: dict[str, KeptRevision] = {}
    for component, declared in declared_revisions(context).items():
        workload = workloads[component]
        rendering = annotation_of(workload, names.ANNOTATION_RENDERING)
        if workload is None or rendering == context.rendering:
            continue
        saved = Revision.load_saved(children.get(("ConfigMap", names.revision(context.name, component))), component)
        current = saved or _observed(context.name, component, workload, children)
        # What the API server added to an observed template is no difference.
        if current == declared or (saved is None and is_subset(current.template, declared.template)):
            continue
        offered, already = f"{context.rendering}:{declared.name}", annotation_of(workload, names.ANNOTATION_OFFERED)
        if already.startswith(f"{context.rendering}:") and already != offered:
            continue  # this release rendered something else before: the owner changed the resource meanwhile
        revisions[component] = KeptRevision(current, rendering, offered)
    return revisions


def _observed(name: str, component: str, workload: Object, children: Mapping[ChildKey, Object]) -> Revision:
    """Return the revision that a workload of a release without saved revisions runs."""
    template = copy.deepcopy(workload["spec"]["template"])
    template["spec"]["containers"][0]["image"] = image_of(workload)
    data = (children.get(("ConfigMap", names.config(name))) or {}).get("data") or {}
    return Revision(template, str(data.get(f"{component}.json", "")))
