"""The program that reads TensorFlow models: it runs in TensorFlow's environment, where only this folder, what it
imports of `modelwright`, and the pinned packages are there.

    python -c BOOT FOLDER-OF-MODELWRIGHT IN OUT

IN/request.json                 what is asked: see `main`
IN/asked/<N>.npz                golden samples, a group of equal sizes each
OUT/answers/<N>.npz             what TensorFlow answers to them
OUT/model.onnx                  the model
OUT/result.json | failed.json   what was learnt, or why it failed; written last
"""
