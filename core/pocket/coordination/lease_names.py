"""Names of the Leases of a group that shares shards."""


class LeaseNames:
    """Names of a group's Leases."""

    def __init__(self, group: str, shards: int) -> None:
        self.leader = f"{group}-leader"
        self._group = group
        self._member = f"{group}-member-"
        self.shards = [f"{group}-shard-{number}" for number in range(shards)]

    def member(self, name: str) -> str:
        """Return the name of the Lease that shows that a member is alive."""
        return self._member + name.removeprefix(f"{self._group}-")

    def is_member(self, name: str) -> bool:
        """Return True if a Lease is a member's."""
        return name.startswith(self._member)
