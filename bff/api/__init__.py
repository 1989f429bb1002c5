"""The porch: where people knock. One file a URL prefix; Flask stays up here."""
