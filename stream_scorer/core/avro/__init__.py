"""Avro: schemas, framing, and safe decoding of untrusted bytes."""
