"""Judges all manifests of a folder by the schemas of Kubernetes, and writes the files of their ConfigMaps into another.

Usage: manifests.py FOLDER OUT VERSION...
"""

import pathlib
import sys

import kubernetes_validate
import yaml

folder, out, versions = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3:]
wrong = []
things = 0
listed = set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"])
present = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
if listed != present:
    wrong.append(f"kustomization.yaml names {sorted(listed)}, there is {sorted(present)}")
for path in sorted(folder.glob("*.yaml")):
    if path.name == "kustomization.yaml":
        continue  # of kustomize, not of the API server
    for thing in yaml.safe_load_all(path.read_text()):
        things += 1
        name = f"{path.name}: {thing['kind']} {thing['metadata']['name']}"
        for version in versions:
            try:
                kubernetes_validate.validate(thing, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                wrong.append(f"{name}: {version}: {'.'.join(map(str, error.path))}: {error.message}")
        if thing["kind"] == "ConfigMap":
            for file, text in thing["data"].items():
                (out / file).write_text(text)
print("\n".join(wrong) if wrong else f"{things} manifests are right for {' '.join(versions)}")
sys.exit(bool(wrong))
