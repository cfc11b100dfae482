"""Avro: schemas, framing, decoding of bytes that anyone may have written."""
