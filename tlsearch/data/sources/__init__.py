"""Where images come from: folders, tables and digits, each as a listing of images with labels."""
