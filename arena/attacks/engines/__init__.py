"""What several attacks run on: descents, walks along the boundary, searches by score."""
