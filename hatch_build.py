"""Metadata that depend on where the repository is: the project's URLs, and the links of the README.

The package index shows the README on a page of its own, where relative links lead nowhere.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(!?\[[^\]]*\])\((?!\w+:|#)([^)]+)\)")


class RepositoryMetadataHook(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        repository, tag = self.config["repository"], f"v{metadata['version']}"
        metadata["urls"] = {
            "Repository": repository,
            "Documentation": f"{repository}/blob/{tag}/docs/README.md",
            "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
            "Issues": f"{repository}/issues",
            "AIRisk": "https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication",
        }

        def absolute(link: re.Match[str]) -> str:
            # GitHub renders a page at "blob", and serves a picture at "raw".
            kind = "raw" if link[1].startswith("!") else "blob"
            return f"{link[1]}({repository}/{kind}/{tag}/{link[2]})"

        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": LINK.sub(absolute, text)}
