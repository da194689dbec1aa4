"""What age does to prints, found and mended by networks of their own: scratches, and faded tones.

They are no members of the ten degradations: the detector does not look for them, and `irtool restore --auto` leaves
them; they are asked for by name, or by a preset.
"""
