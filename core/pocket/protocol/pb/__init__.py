"""Protobuf messages of the chain, compiled by scripts/generate_pb.py."""
