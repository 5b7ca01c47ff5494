"""Policies from elsewhere: a file of this folder reads one format, in bounded memory, and runs nothing that it reads."""
