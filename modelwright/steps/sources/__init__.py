"""What URIs of sources lead to: files in object stores, behind https, in folders. One module a kind of place."""
